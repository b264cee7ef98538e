"""Colours and style sheet of the HTML page. Every colour is a CSS variable with a light and a dark value."""

from __future__ import annotations

# name: (light, dark)
INKS = {
    "surface": ("#ffffff", "#1b1c1f"),
    "page": ("#f6f6f3", "#121315"),
    "ink": ("#1c1d20", "#ececea"),
    "muted": ("#62646b", "#a3a5ab"),
    "grid": ("#e4e4df", "#33353a"),
    "line": ("#b4b5b0", "#5b5e66"),
    "accent": ("#1f5fb0", "#7fb2f5"),
    "heat": ("#0e3f82", "#6fabf5"),
    "heat-ink": ("#ffffff", "#0d1420"),
    "wrong": ("#b3261e", "#ff8f85"),
}

GROUPS = {
    "group-0": ("#2a6fc9", "#5b9bec"),
    "group-1": ("#d9661f", "#f08a47"),
    "group-2": ("#1a8f63", "#3dbb8b"),
    "group-3": ("#b23a86", "#e274b8"),
    "group-4": ("#b8860b", "#e0b23c"),
    "group-5": ("#6a4fc0", "#a48ff0"),
    "group-6": ("#c8363f", "#f0737a"),
    "group-7": ("#22879b", "#4fc0d6"),
}

CATEGORIES = {
    "params": ("#2b5c9e", "#4f86cf"),
    "head": ("#6f9fd8", "#86b4ea"),
    "buffers": ("#a9c8ea", "#b9d5f4"),
    "frozen_copy": ("#173862", "#2f5a92"),
    "exemplars": ("#e07b2e", "#ea8b40"),
    "codes": ("#f2ab68", "#f5b77c"),
    "codebooks": ("#b3560f", "#c46a22"),
    "features": ("#f7cfa6", "#f8d9b6"),
    "prototypes": ("#2e8b58", "#45a873"),
    "covariances": ("#79c099", "#85cda6"),
    "importance": ("#7d52ac", "#9a73c9"),
    "updates": ("#9b6bc4", "#b189d9"),
    "subspace": ("#b99ad8", "#c9afe4"),
    "index": ("#7f807b", "#8f918c"),
    "keys": ("#a3a49e", "#b0b2ac"),
    "optimizer": ("#c24a68", "#d9647f"),
    "rng": ("#c0c1ba", "#cbccc6"),
    "meta": ("#d3d4ce", "#dcddd8"),
    "other": ("#55565a", "#74767c"),
}

PHASES = {
    "train": ("#2b5c9e", "#5b93dd"),
    "report": ("#4a78b5", "#4f86cf"),
    "observe": ("#7d52ac", "#9a73c9"),
    "data": ("#79a9df", "#a5c8f2"),
    "select": ("#e07b2e", "#ea8b40"),
    "read": ("#e07b2e", "#ea8b40"),
    "evaluate": ("#2e8b58", "#45a873"),
    "controls": ("#79c099", "#85cda6"),
    "write": ("#8a8b86", "#9a9c97"),
    "rebuild": ("#c0c1ba", "#cbccc6"),
    "other-phase": ("#b23a86", "#e274b8"),
}

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "h", "<")
MARKER_SIGNS = ("●", "■", "▲", "◆", "▼", "✚", "✖", "⬟", "⬢", "◀")
HOLLOW_SIGNS = ("○", "□", "△", "◇", "▽", "✙", "✗", "⬠", "⬡", "◁")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))

VARIABLES = {**INKS, **GROUPS, **CATEGORIES, **PHASES}


def group_colour(index: int) -> str:
    """Name the colour variable of the index-th group; they repeat after eight, markers after ten."""
    return f"group-{index % len(GROUPS)}"


def known(name: str, palette: dict[str, tuple[str, str]], other: str) -> str:
    """Name the colour variable of a category or phase, `other` where it has none of its own."""
    return name if name in palette else other


def style() -> str:
    """Give the style sheet."""
    light = "".join(f"--{name}:{pair[0]};" for name, pair in VARIABLES.items())
    dark = "".join(f"--{name}:{pair[1]};" for name, pair in VARIABLES.items())
    return f":root{{color-scheme:light dark;{light}}}\n@media(prefers-color-scheme:dark){{:root{{{dark}}}}}\n{RULES}"


RULES = """
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
 font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
.page{max-width:1320px;margin:0 auto;padding:32px 24px 64px}
h1{font-size:30px;line-height:1.2;margin:0 0 6px;letter-spacing:-.01em}
h2{font-size:22px;line-height:1.3;margin:44px 0 4px;letter-spacing:-.005em}
h3{font-size:17px;margin:0 0 4px}
h4{font-size:15px;margin:0 0 6px;font-weight:600;overflow-wrap:anywhere}
p{margin:0 0 10px;max-width:80ch}
.lead{max-width:none;font-size:17px;color:var(--muted)}
.muted,figcaption,.note{color:var(--muted)}
figcaption,.note{font-size:14px;max-width:110ch}
figcaption{margin-top:10px}
.card>.note{margin:12px 0 0}
.many .note,.tables .note{margin:2px 0 0}
code{font:.9em ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
a{color:var(--accent)}
.facts{display:flex;flex-wrap:wrap;gap:6px 28px;margin:14px 0 0;padding:0;font-size:14px}
.facts div{display:flex;gap:8px}
.facts dt{color:var(--muted)}
.facts dd{margin:0;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.card{background:var(--surface);border:1px solid var(--grid);border-radius:10px;padding:16px 18px;
 margin:12px 0 0;min-width:0}
figure.card{margin-left:0;margin-right:0}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:0 16px;align-items:stretch}
.many{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr));gap:22px 26px;margin:14px 0 12px}
.tables{display:flex;flex-wrap:wrap;gap:24px 36px;margin:14px 0 12px}
.tables>div{max-width:100%;min-width:0}
.scroll{overflow-x:auto;max-width:100%;
 background:linear-gradient(to left,var(--surface) 40%,transparent) right/48px 100% no-repeat local,
 linear-gradient(to left,color-mix(in srgb,var(--ink) 18%,transparent),transparent) right/14px 100% no-repeat scroll}
.scroll:focus-visible,button:focus-visible,summary:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
svg{margin:4px 0;display:block;width:100%;height:auto;overflow:visible}
svg *{stroke-linejoin:round;stroke-linecap:butt}
svg.wide{max-width:760px}
.many svg{max-width:440px}
.pair svg{max-width:660px}
svg text{font-family:inherit;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--muted);font-size:14px;padding:0 0 6px}
th,td{padding:6px 10px;text-align:right;white-space:nowrap;font-weight:400;border-bottom:1px solid var(--grid)}
thead th{color:var(--muted);font-size:13px;vertical-align:bottom;line-height:1.3}
thead tr:last-child th{border-bottom:1px solid var(--line)}
thead .over{text-align:center;font-weight:600;color:var(--ink);border-bottom:1px solid var(--line)}
.edge{border-left:1px solid var(--grid)}
tbody tr:last-child>*{border-bottom:0}
th[scope=row],.first{text-align:left;white-space:normal}
.main{width:100%}
.main .first,.main th[scope=row]{position:sticky;left:0;background:var(--surface);min-width:120px;z-index:1}
.main tbody tr:hover>*{background:color-mix(in srgb,var(--grid) 35%,var(--surface))}
.main td,.main thead th{padding:6px 8px}
th button{all:unset;box-sizing:border-box;cursor:pointer;color:inherit;white-space:normal;
 display:inline-block;max-width:11ch}
details th button,.plainly th button{max-width:22ch}
[hidden]{display:none!important}
.tools{position:sticky;top:0;z-index:5;display:flex;flex-wrap:wrap;gap:8px 14px;align-items:center;
 margin:18px -8px 0;padding:10px 8px;background:var(--page);border-bottom:1px solid var(--grid);font-size:14px}
.tools input[type=search]{font:inherit;color:inherit;background:var(--surface);border:1px solid var(--line);
 border-radius:7px;padding:5px 9px;width:min(260px,60vw)}
.tools button{font:inherit;color:inherit;background:var(--surface);border:1px solid var(--line);border-radius:999px;
 padding:3px 11px;cursor:pointer}
.tools button[aria-pressed=false]{color:var(--muted);text-decoration:line-through;background:none}
.tools input:focus-visible{outline:2px solid var(--accent);outline-offset:1px}
.tools output{color:var(--muted);font-variant-numeric:tabular-nums;margin-left:auto}
.tall{max-height:520px;overflow-y:auto}
.tall thead th{position:sticky;top:0;background:var(--surface);z-index:1}
th button:hover{color:var(--accent)}
.save{all:unset;float:right;margin-left:12px;padding:1px 7px;border:1px solid var(--line);border-radius:6px;
 color:var(--muted);font-size:12px;font-weight:400;line-height:1.5;cursor:pointer}
.save:hover{color:var(--accent);border-color:var(--accent)}
.save:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
th[aria-sort] button{color:var(--ink);font-weight:600;text-decoration:underline;text-underline-offset:4px;
 text-decoration-thickness:2px;text-decoration-color:var(--accent)}
th[aria-sort=ascending] button{text-decoration-style:dotted}
.main:not(:has([aria-sort])) tr.next>*{border-top:2px solid var(--line)}
.name{font-weight:600}
.marked{white-space:nowrap}
.main th[scope=row]{padding-left:4px}
.options{display:block;font-size:12.5px;color:var(--muted);line-height:1.35}
.sd{display:block;color:var(--muted);font-size:12px;line-height:1.3}
.headline{font-weight:650}
.headline .sd{font-weight:400}
.flag{display:block;color:var(--wrong);font-size:12px;font-weight:600;line-height:1.25;white-space:normal;
 width:min-content;margin-left:auto}
td.verdict{white-space:normal;min-width:150px;max-width:210px;text-align:left}
.verdict .failed{color:var(--wrong);font-weight:600}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;list-style:none;margin:6px 0 8px;padding:0;font-size:14px}
.legend li{display:flex;align-items:center;gap:7px}
.mark{flex:none;width:1.1em;text-align:center;line-height:1}
.box{flex:none;width:13px;height:13px;border-radius:3px}
.dash{flex:none;width:20px;border-top:2px dashed var(--ink)}
.heat td{min-width:42px;padding:6px 2px;font-size:13px;text-align:center;
 border:2px solid var(--surface);border-radius:5px;
 background:color-mix(in oklab,var(--heat) var(--v),var(--surface))}
.heat.fine td{min-width:68px}
.heat td.high{color:var(--heat-ink)}
.heat td.none{background:none}
.heat td.worse{outline:2px solid var(--wrong);outline-offset:-4px}
.heat th{border:0;padding:4px 6px;color:var(--muted);font-size:13px;text-align:center}
.heat thead tr:last-child th{border:0}
.heat th[scope=row]{text-align:right;white-space:nowrap}
h2+.card>details:first-child,.card>details:first-child{margin-top:0}
h2.part{font-size:26px;margin:64px 0 -20px;padding-top:26px;border-top:2px solid var(--line)}
header+h2.part{margin-top:36px}
details{margin-top:10px;font-size:14px}
summary{cursor:pointer;color:var(--accent);width:fit-content}
details>.scroll{margin-top:8px}
dl.terms{display:grid;grid-template-columns:minmax(120px,max-content) 1fr;gap:6px 22px;margin:10px 0 0;font-size:14px}
dl.terms dt{overflow-wrap:anywhere}
dl.terms dd{margin:0;max-width:80ch}
.plain{margin:0;padding-left:20px}
@media(max-width:640px){
 .page{padding:20px 14px 48px}
 h1{font-size:25px}
 .card{padding:13px 12px}
 .tools{position:static}
 .main .first,.main th[scope=row]{min-width:96px;max-width:44vw}
 dl.terms{grid-template-columns:1fr;gap:0}
 dl.terms dd{margin-bottom:10px}
}
@media print{body{background:none}.tools,.save{display:none}.card{break-inside:avoid}details{display:none}}
"""
