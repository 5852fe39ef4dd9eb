"""Builds the charts of every report in one visual language.

The ideal is drawn in ink, and each policy and each engine keeps one colour across charts.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import plotly.graph_objects as go

Figure: TypeAlias = go.Figure

INK = "#1f2933"
GRID = "#e6e9ee"
POLICY_COLOURS = {"round_robin": "#8a94a3", "kv": "#0f766e", "least_request": "#7c5cbf", "random": "#b7791f"}
ENGINE_COLOURS = ("#0f766e", "#c2562d", "#3b6fb6", "#7c5cbf", "#b7791f", "#4d7c0f", "#be3a6d", "#5b6470")
HEIGHT = 340


def base_figure(x_title: str, y_title: str) -> Figure:
    """Return an empty figure with the shared fonts, margins and axes."""
    figure = go.Figure()
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "ticks": "outside", "tickcolor": GRID}
    figure.update_layout(
        height=HEIGHT,
        margin={"l": 64, "r": 24, "t": 16, "b": 48},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, -apple-system, 'Segoe UI', sans-serif", "size": 13, "color": INK},
        hovermode="x unified",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        xaxis={**axis, "title": x_title, "rangemode": "tozero"},
        yaxis={**axis, "title": y_title, "rangemode": "tozero"},
    )
    return figure


def add_line(
    figure: Figure,
    name: str,
    points: Sequence[tuple[float, float]],
    colour: str,
    *,
    dash: str = "solid",
    width: float = 2,
) -> None:
    """Add one series of (x, y) points."""
    figure.add_trace(
        go.Scatter(
            x=[x for x, _ in points],
            y=[y for _, y in points],
            name=name,
            mode="lines",
            line={"color": colour, "width": width, "dash": dash},
        )
    )


def mark_time(figure: Figure, at: float, text: str, colour: str = "#b42318") -> None:
    """Add a labelled vertical line at x = `at`."""
    figure.add_vline(
        x=at,
        line={"color": colour, "width": 1.5, "dash": "dot"},
        annotation_text=text,
        annotation_position="top left",
        annotation_font={"color": colour, "size": 12},
    )


def bars(x_title: str, y_title: str, names: Sequence[str], series: Mapping[str, Sequence[float | None]]) -> Figure:
    """Return grouped bars: one group per name, one bar per series in each group."""
    figure = base_figure(x_title, y_title)
    for series_name, values in series.items():
        colour = POLICY_COLOURS.get(series_name, ENGINE_COLOURS[2])
        figure.add_trace(go.Bar(x=list(names), y=list(values), name=series_name, marker={"color": colour}))
    figure.update_layout(barmode="group", bargap=0.35, hovermode="closest")
    return figure


def fragment(figure: Figure) -> str:
    """Return the figure as HTML without plotly's script, which the page includes once."""
    config = {"displayModeBar": False, "responsive": True}
    html: str = figure.to_html(full_html=False, include_plotlyjs=False, config=config)
    return html
