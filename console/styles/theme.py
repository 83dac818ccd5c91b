"""The console's two themes.

Style sheets and widgets use Textual's own tokens only, so that every other theme works too; these two give the tokens
the look of the console: ink and paper, one accent, state colours for what needs attention, quiet borders.

| token | for |
|---|---|
| `$background` `$foreground` | the ground, and data on it |
| `$text` | titles, the active tab, what is read first |
| `$text-muted` | headers, hints, zeros, what may be overlooked |
| `$accent` `$success` `$warning` `$error` | the accent; good, warn, bad |
| `$panel` | the top and bottom line |
| `$border` `$border-blurred` | the focused card, the others |
| `$block-cursor-background` `$block-cursor-blurred-background` | the cursor's line |
"""

from __future__ import annotations

from typing import Final

from textual.theme import Theme

AGENT_DARK: Final = Theme(
    name="agent-dark",
    dark=True,
    primary="#6cb6ff",
    secondary="#3d5a80",
    accent="#6cb6ff",
    success="#57ab5a",
    warning="#daaa3f",
    error="#f47067",
    foreground="#c9d1d9",
    background="#11151c",
    surface="#161b24",
    panel="#1c2330",
    boost="#c9d1d90d",
    variables={
        "text": "#e6edf3",
        "text-muted": "#5c6773",
        "text-disabled": "#3f4956",
        "border": "#3d5a80",
        "border-blurred": "#2a3342",
        "block-cursor-foreground": "#e6edf3",
        "block-cursor-background": "#22304a",
        "block-cursor-text-style": "none",
        "block-cursor-blurred-foreground": "#c9d1d9",
        "block-cursor-blurred-background": "#1a212d",
        "block-hover-background": "#1a212d",
        "input-cursor-background": "#6cb6ff",
        "input-cursor-foreground": "#11151c",
        "input-selection-background": "#2f4a70",
        "screen-selection-background": "#2f4a70",
        "button-color-foreground": "#11151c",
        "scrollbar": "#2a3342",
        "scrollbar-hover": "#3d5a80",
        "scrollbar-active": "#6cb6ff",
        "scrollbar-background": "#11151c",
        "scrollbar-background-hover": "#11151c",
        "scrollbar-background-active": "#11151c",
        "scrollbar-corner-color": "#11151c",
        "footer-foreground": "#5c6773",
        "footer-background": "#1c2330",
        "footer-key-foreground": "#6cb6ff",
        "footer-key-background": "#1c2330",
        "footer-description-foreground": "#5c6773",
        "footer-description-background": "#1c2330",
        "footer-item-background": "#1c2330",
    },
)
"""Light on ink."""

AGENT_LIGHT: Final = Theme(
    name="agent-light",
    dark=False,
    primary="#0b5cad",
    secondary="#7d9cc0",
    accent="#0b5cad",
    success="#2c7a33",
    warning="#8f6400",
    error="#c0322b",
    foreground="#333d48",
    background="#fafbfc",
    surface="#f2f4f7",
    panel="#e8ecf1",
    boost="#333d480d",
    variables={
        "text": "#10161d",
        "text-muted": "#7d8894",
        "text-disabled": "#aab3bd",
        "border": "#7d9cc0",
        "border-blurred": "#d5dbe3",
        "block-cursor-foreground": "#10161d",
        "block-cursor-background": "#d5e5f8",
        "block-cursor-text-style": "none",
        "block-cursor-blurred-foreground": "#333d48",
        "block-cursor-blurred-background": "#edf1f6",
        "block-hover-background": "#edf1f6",
        "input-cursor-background": "#0b5cad",
        "input-cursor-foreground": "#fafbfc",
        "input-selection-background": "#bcd6f5",
        "screen-selection-background": "#bcd6f5",
        "button-color-foreground": "#fafbfc",
        "scrollbar": "#d5dbe3",
        "scrollbar-hover": "#7d9cc0",
        "scrollbar-active": "#0b5cad",
        "scrollbar-background": "#fafbfc",
        "scrollbar-background-hover": "#fafbfc",
        "scrollbar-background-active": "#fafbfc",
        "scrollbar-corner-color": "#fafbfc",
        "footer-foreground": "#7d8894",
        "footer-background": "#e8ecf1",
        "footer-key-foreground": "#0b5cad",
        "footer-key-background": "#e8ecf1",
        "footer-description-foreground": "#7d8894",
        "footer-description-background": "#e8ecf1",
        "footer-item-background": "#e8ecf1",
    },
)
"""Ink on paper, the same roles."""

THEMES: Final = (AGENT_DARK, AGENT_LIGHT)
"""All of them, the default first: `for theme in THEMES: app.register_theme(theme)`."""
