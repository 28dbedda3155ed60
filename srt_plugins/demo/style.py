"""How the page looks: fonts of the reader's system, nothing fetched."""

from __future__ import annotations

from typing import Any

CSS = """
.gradio-container { max-width: 1500px !important; margin: 0 auto; }
.srt-head h1 { margin: 0; font-size: 1.35rem; }
.srt-head p { margin: 0.15rem 0 0; color: var(--body-text-color-subdued); }
.srt-status { padding: 0.55rem 0.8rem; border-radius: 8px; overflow-wrap: anywhere;
  min-height: 3.4rem; display: flex; align-items: center;
  background: var(--background-fill-secondary); border: 1px solid var(--border-color-primary); }
.srt-status.error { color: #b3261e; border-color: #b3261e; background: #fdecea; }
.dark .srt-status.error { color: #ffb4ab; border-color: #ffb4ab; background: #3b1512; }
.srt-hint, .srt-caption { font-size: 0.82rem; line-height: 1.35; overflow-wrap: anywhere;
  color: var(--body-text-color-subdued) !important; }
.srt-caption { min-height: 1.2rem; margin-top: -0.6rem; padding: 0 0.2rem; }
.srt-caption div { color: inherit; }
.srt-hint.error { color: #b3261e !important; }
.dark .srt-hint.error { color: #ffb4ab !important; }
.srt-bar { display: flex; gap: 0.5rem; align-items: center; }
.srt-bar span { color: inherit; }
.srt-bar .ramp { flex: 1; height: 0.6rem; border-radius: 3px; }
.srt-legend { display: flex; flex-wrap: wrap; gap: 0.2rem 0.9rem; font-size: 0.85rem; }
.srt-legend .chip { display: inline-flex; align-items: center; gap: 0.35rem; }
.srt-legend i { width: 0.8rem; height: 0.8rem; border-radius: 2px; border: 1px solid #8888; }
.srt-cost table, .srt-cost tr, .srt-cost th, .srt-cost td { border: 0 !important; }
.srt-cost table { border-collapse: collapse; font-size: 0.88rem; width: auto; margin: 0; }
.srt-cost th, .srt-cost td { padding: 0.1rem 1.6rem 0.1rem 0; text-align: right;
  font-variant-numeric: tabular-nums; font-weight: normal; }
.srt-cost th { color: var(--body-text-color-subdued); }
.srt-cost th:first-child { text-align: left; }
.srt-cost div { font-size: 0.8rem; color: var(--body-text-color-subdued); }
#scenes .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)) !important; gap: 6px; }
#scenes .grid-wrap { min-height: 0; padding: 6px; overflow: hidden; }
#scenes .thumbnail-item { width: 100%; min-width: 0; aspect-ratio: 3 / 2; }
"""


def theme() -> Any:
    """Gradio's theme with the fonts of the reader's system."""
    import gradio as gr

    class SystemFont(gr.themes.Font):
        """A font that is there already; Gradio would look for a file of any other."""

        def stylesheet(self) -> dict[str, None]:
            return {"url": None, "css": None}

    sans = [SystemFont(name) for name in ("system-ui", "sans-serif")]
    mono = [SystemFont(name) for name in ("ui-monospace", "monospace")]
    return gr.themes.Default(primary_hue="teal", neutral_hue="slate", font=sans, font_mono=mono)
