"""The style sheet of a report page, for light, dark and print."""

from __future__ import annotations

__all__ = ["STYLE"]

_COLORS = {
    "light": "--page:#fff;--card:#f6f7f9;--ink:#1c2430;--muted:#5d6878;--line:#dde2e9;--band:#cdd4de;"
    "--c1:#0067a5;--c2:#c14a00;--c3:#00795a;--c4:#a63e7c;--c5:#856800;--c6:#4b56cc;--good:#00795a;--bad:#b33a00;",
    "dark": "--page:#14181f;--card:#1d232d;--ink:#e6eaf0;--muted:#98a4b5;--line:#343d4b;--band:#46505f;"
    "--c1:#5ab6f2;--c2:#ff9455;--c3:#3ac99a;--c4:#ea9aca;--c5:#e2c044;--c6:#a6aeff;--good:#3ac99a;--bad:#ff9455;",
}
STYLE = (
    f":root{{color-scheme:light dark;{_COLORS['light']}}}"
    f"@media screen and (prefers-color-scheme:dark){{:root{{{_COLORS['dark']}}}}}"
    """
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:980px;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .4rem;letter-spacing:-.015em;text-wrap:balance}
h2{font-size:1.35rem;line-height:1.3;margin:3rem 0 .6rem;padding-top:1.2rem;border-top:1px solid var(--line)}
h3{font-size:1.08rem;line-height:1.35;margin:2rem 0 .5rem}
h1,h2,h3,p,li,dt,dd,summary{overflow-wrap:anywhere}
p,li{max-width:75ch}p{margin:.6rem 0}
ul{padding-left:1.3rem;margin:.6rem 0}li{margin:.35rem 0}
.muted,figcaption,.hint{color:var(--muted)}
.hint,figcaption{font-size:.9rem;margin:.5rem 0 0;max-width:75ch}
.verdict{border-left:4px solid var(--line);padding:.1rem 0 .1rem 1rem;margin:1rem 0 1.4rem;font-size:1.08rem}
.verdict.like{border-color:var(--good)}.verdict.under,.verdict.over,.warning{border-color:var(--bad)}
.warning{border:1px solid var(--bad);border-left-width:4px;border-radius:4px;padding:.2rem 1rem;margin:1.4rem 0}
.attacks{margin:0}.attacks dt{font-weight:600;margin-top:1.1rem}.attacks dd{margin:.15rem 0 0;max-width:75ch}
.attacks dd.muted{font-size:.93rem}
.scroll{overflow-x:auto;margin-top:.8rem}.scroll:focus-visible{outline:2px solid var(--c1);outline-offset:2px}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.45rem .6rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
thead th{font-weight:600;color:var(--muted);vertical-align:bottom;white-space:normal;font-size:.82rem;line-height:1.3}
th:first-child,td.text,th.text{text-align:left}td.text{white-space:normal;min-width:15rem}
th:first-child{padding-left:0}
td small{margin-left:.4em;color:var(--muted);font-size:.88em;font-weight:400}.narrow small,small.below{display:block;
margin-left:0}
small.wrap{display:inline-block;white-space:normal;max-width:6.5rem;line-height:1.3}
tr.group th{padding-top:1.1rem;color:var(--ink)}tbody th{font-weight:500}tr.group th{font-weight:650}
tr.reference th,tr.reference td{color:var(--muted)}
.chip{display:inline-block;border:1px solid currentColor;border-radius:99px;padding:0 .6em;font-size:.8rem;
color:var(--muted)}
.chip.like{color:var(--good)}.chip.under,.chip.over{color:var(--bad)}
figure{margin:0}
figure svg{display:block;width:100%;min-width:560px;height:auto}
figure svg *{stroke-linejoin:round;stroke-linecap:butt}
details{border-bottom:1px solid var(--line);padding:.5rem 0}
summary{cursor:pointer;font-weight:600}
pre,code{font:.82rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{background:var(--card);border-radius:8px;padding:.8rem 1rem;overflow:auto;max-height:26rem;white-space:pre-wrap;
overflow-wrap:anywhere}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1.2rem;margin:.6rem 0;font-size:.95rem}
.facts dt{color:var(--muted)}.facts dd{margin:0}
tbody th.long{white-space:normal;min-width:12rem;overflow-wrap:anywhere}
tbody th:first-child{position:sticky;left:0;background:var(--page)}tr.group th:first-child{position:static}
@media (max-width:560px){tbody th:first-child{white-space:normal;min-width:6rem;max-width:9rem}
tr.group th:first-child{max-width:none;white-space:nowrap}
main{padding-top:1.5rem}.facts{grid-template-columns:1fr;gap:0}.facts dd{margin-bottom:.5rem}}
@media print{:root{font-size:13px}main{max-width:none;padding:0}body{font-size:1rem}
h2,h3{break-after:avoid}table{font-size:.78rem}
th,td{padding:.25rem .35rem;white-space:normal}td.text{min-width:0}figure svg{min-width:0}
figure,tr,.warning{break-inside:avoid}pre{max-height:none}.scroll{overflow:visible}}
"""
)
