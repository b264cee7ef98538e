"""What the terms of a collection mean, for someone who must sign for it."""

from __future__ import annotations

from collections.abc import Sequence

from clearn.report.collections.columns import POSTS, WORSE, columns
from clearn.report.collections.grouping import CollectionGroup

INTRO = (
    "Each user holds one of k values of an attribute; what is reported is randomised on the user's device, so that "
    "nobody, the server included, learns a value for sure. f is the true frequency of a value in the whole population, "
    "fhat its estimate. A loss of eps means that nothing reported is more than e^eps times as likely from one value as "
    "from another. Errors are printed with three digits (1.91e-2 is 0.0191), bytes in binary units, a device's as "
    "bits / 8; hover over a number for its exact value."
)

PRIVACY = {
    "eps_inf": "What all reports of one value that never changes lose, however many: the permanent answer (the memo), "
    "drawn once and kept, loses this much and no more. A one-shot oracle keeps nothing: its eps stands here, and is "
    "lost anew in every round.",
    "eps_1": "What the first report loses. Every report adds fresh noise to the same memo; alpha = eps_1 / eps_inf.",
    "eps_effective": "The same two losses by the probabilities in use: composed exactly, and rounded to 32 or 64 "
    "random bits. Some published formulas deliver other losses than they promise; a flag marks one above its promise. "
    "∞ for ever: nothing is kept, and losses add up without end.",
    "static": "eps_static: the exact loss of the reports of the value (or cell) that a user held longest, as between "
    "two users who never change. It grows from eps_1 towards eps_inf.",
    "memo": "eps_memo: the exact losses of the values (or cells) that a user has held, each for as many rounds as it "
    "was held, added up; the literature bounds it by their number times eps_inf. It holds only between trajectories "
    "with one pattern of changes: equal values in the same rounds. It is no guarantee for arbitrary trajectories, "
    "because reports of one value share a memo and stop to agree with it when the value changes, so that the change "
    "itself shows. Who moved can be told from who stayed, at a loss that grows with the rounds before and after and "
    "can exceed eps_memo.",
    "any": "eps_any: the only general bound, for any two trajectories: the loss of fresh noise between two memos, "
    "times the rounds. It grows with every round; ∞ where the memo itself is sent, so that a change is seen at once.",
}

ERROR = {
    "MSE_avg": "The mean of (f - fhat)² over an attribute's values, then over attributes and rounds. f is that of the "
    "whole population, also where only some users were asked for an attribute.",
    "expected": "The closed form of the error before post-processing (none), at the true frequencies and the numbers "
    "of users who answered; the simulated one differs from it by chance alone.",
    "uniform guess": f"The error of answering 1/k for every value without asking anybody. {WORSE.capitalize()} marks "
    "errors above it: privacy was spent for less than nothing.",
    "mean of rounds, floor": "For values that never change, the mean of all rounds' estimates so far. Fresh noise "
    "averages out, the memo's does not: after t rounds the closed form of the error is a + b/t, and the floor is a.",
    "linked": "For values that never change, the likeliest frequencies given each user's reports together: how often "
    "they support a value says more than the sum over users. The server keeps a counter a user and value.",
    "± and bands": "Sample standard deviation (divisor n - 1) over repeats and over runs of other seeds; none is "
    "printed for a single collection. Divided by √n it is the standard error of the mean.",
    "n": "Finished runs × repeats in each: independent collections of the same data.",
}

SIMULATION = {
    "engine": "per_user simulates every device; aggregate draws the server's counts from their distribution, at a cost "
    "that does not depend on the number of users. joint: the joint law of all counts is exact; moments: all means, "
    "variances and covariances are, so the mean error is exact and its spread nearly; marginals: the law of each count "
    "is, so the mean error is exact and its spread is not.",
    "secret and public": "Memos must stay on the device: they tell what eps_inf was to hide. Hash seeds and the like "
    "are kept as well, and disclosed. Worst is the most that any user can come to hold.",
}


def told(groups: Sequence[CollectionGroup]) -> dict[str, str]:
    """Define the terms that these groups' tables and figures use."""
    found = dict(PRIVACY) | {"MSE_avg": ERROR["MSE_avg"]}
    for post in dict.fromkeys(post for group in groups if group.n for post in group.posts):
        text = POSTS.get(post, "after this post-processing")
        found[post] = f"MSE_avg {text}. Post-processing reads the estimates alone, so it costs no privacy."
    found |= ERROR | SIMULATION
    for column in columns([group for group in groups if group.n]):
        if column.part in ("cost", "simulation"):
            found[column.title] = column.note[0].upper() + column.note[1:] + "."
    if any(group.options.get("runner.rebuild") == "no" for group in groups):
        found["runner.rebuild=no"] = (
            "The carried bytes were weighed, but users and server were not rebuilt from them, so they may not be all."
        )
    return found
