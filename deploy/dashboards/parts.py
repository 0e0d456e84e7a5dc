"""The parts of the dashboards: selectors, queries, panels and the layout."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import TypeVar

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heat_models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH = 24  # of Grafana's grid
IMAGES = "suffix: images/s"  # a unit of ours; all others are Grafana's
GOOD, WARNING, BAD = "green", "orange", "red"

Panel = stat.Panel | timeseries.Panel | heatmap.Panel | table.Panel
P = TypeVar("P", stat.Panel, timeseries.Panel, heatmap.Panel, table.Panel)
Row = tuple[int, Sequence[tuple[int, Panel]]]  # its height; widths and panels, from the left
Limits = tuple[float, float]  # from here on a value is to be watched, from there on it is bad


def of(metric: str, *matchers: str) -> str:
    """The series of a metric that the variable `namespace` selects."""
    return metric + "{" + ", ".join(('namespace=~"$namespace"', *matchers)) + "}"


def process(metric: str) -> str:
    """The series of a metric that other services have too."""
    return of(metric, 'job=~"$job"')


def rate(metric: str, *matchers: str, by: str = "", window: str = "$__rate_interval") -> str:
    """The sum of a counter's rates per second."""
    return f"sum{f' by ({by})' if by else ''} (rate({of(metric, *matchers)}[{window}]))"


def present(metric: str, *matchers: str, by: str) -> str:
    """`rate` of the series that exist in the chosen range: two of forty reasons, say."""
    gained = f"sum by ({by}) (increase({of(metric, *matchers)}[$__range]))"
    return f"{rate(metric, *matchers, by=by)} and {gained} > 0"


def share(part: str, whole: str) -> str:
    """The ratio of two expressions; without a value where the second is 0."""
    return f"{part} / ({whole} > 0)"


def percentile(quantile: float, metric: str, *matchers: str) -> str:
    """A percentile of a histogram."""
    buckets = rate(f"{metric}_bucket", *matchers, by="le")
    return f"histogram_quantile({quantile}, {buckets})"


def ask(expr: str, legend: str = "", *, now: bool = False) -> prometheus.Dataquery:
    """A query over the chosen range, or at its end."""
    query = prometheus.Dataquery().datasource(SOURCE).expr(expr).legend_format(legend)
    return query.instant() if now else query.range()


def limits(watch: float, bad: float) -> dashboard.ThresholdsConfig:
    """Green, then orange, then red; falling limits reverse the order."""
    steps = [(GOOD, watch), (WARNING, bad), (BAD, 0.0)]
    if watch > bad:
        steps = [(BAD, bad), (WARNING, watch), (GOOD, 0.0)]
    found, since = [], None
    for colour, until in steps:
        found.append(models.Threshold(value=since, color=colour))
        since = until
    mode = models.ThresholdsMode.ABSOLUTE
    return dashboard.ThresholdsConfig().mode(mode).steps(found)


def _panel(
    panel: P,
    texts: tuple[str, str, str],
    queries: Sequence[prometheus.Dataquery],
    runbook: Sequence[str],
) -> P:
    title, about, unit = texts
    panel.title(title).description(about).datasource(SOURCE).unit(unit)
    for ref, query in zip(string.ascii_uppercase, queries, strict=False):
        panel.with_target(query.ref_id(ref))
    if runbook:
        panel.links(
            [
                dashboard.DashboardLink(f"Runbook: {alert}")
                .type(models.DashboardLinkType.LINK)
                .url(f"${{runbook:raw}}#{alert.lower()}")
                .target_blank(True)
                for alert in runbook
            ]
        )
    return panel


def number(
    title: str,
    about: str,
    unit: str,
    query: prometheus.Dataquery,
    *,
    limit: Limits | None = None,
    runbook: Sequence[str] = (),
    named: bool = False,
    decimals: int | None = None,
    empty: str = "none",
    history: bool = True,
) -> stat.Panel:
    """One large number, or with `named` the name of the series."""
    panel = _panel(stat.Panel(), (title, about, unit), [query], runbook)
    panel.no_value(empty).reduce_options(
        common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    )
    panel.graph_mode(kinds.BigValueGraphMode.AREA if history else kinds.BigValueGraphMode.NONE)
    if named:
        panel.text_mode(kinds.BigValueTextMode.NAME)
    if decimals is not None:
        panel.decimals(decimals)
    if limit is None:
        plain = dashboard.FieldColor().mode(models.FieldColorModeId.FIXED).fixed_color("blue")
        return panel.color_scheme(plain)
    colour = dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS)
    return panel.thresholds(limits(*limit)).color_scheme(colour)


def lines(
    title: str,
    about: str,
    unit: str,
    *queries: prometheus.Dataquery,
    limit: Limits | None = None,
    runbook: Sequence[str] = (),
    stacked: bool = False,
    dashed: str = "",
    most: float | None = None,
) -> timeseries.Panel:
    """Lines over time; `stacked` if their sum has a meaning, `dashed` the name of a bound."""
    panel = _panel(timeseries.Panel(), (title, about, unit), queries, runbook)
    panel.min(0).line_width(2).show_points(kinds.VisibilityMode.NEVER)
    panel.fill_opacity(30 if stacked else 0)
    panel.legend(
        common.VizLegendOptions()
        .display_mode(kinds.LegendDisplayMode.TABLE)
        .placement(kinds.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
    )
    panel.tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI))
    if most is not None:
        panel.max(most)
    if stacked:
        panel.stacking(common.StackingConfig().group("A").mode(kinds.StackingMode.NORMAL))
    if dashed:
        style = {"fill": "dash", "dash": [10, 10]}
        colour = {"mode": "fixed", "fixedColor": BAD}
        values = {"custom.lineStyle": style, "custom.lineWidth": 1, "color": colour}
        properties = [models.DynamicConfigValue(id_val=name, value=values[name]) for name in values]
        panel.override_by_name(dashed, properties)
    if limit is not None:
        shown = common.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.DASHED)
        panel.thresholds(limits(*limit)).thresholds_style(shown)
    return panel


def heat(title: str, about: str, metric: str, *, runbook: Sequence[str] = ()) -> heatmap.Panel:
    """A histogram over time: the count of each bucket."""
    buckets = f"sum by (le) (increase({of(metric + '_bucket')}[$__rate_interval]))"
    query = ask(buckets, "{{le}}").format(PromQueryFormat.HEATMAP)
    panel = _panel(heatmap.Panel(), (title, about, "short"), [query], runbook)
    colour = heatmap.HeatmapColorOptions().mode(heat_models.HeatmapColorMode.SCHEME)
    panel.calculate(False).color(colour.scheme("Oranges").steps(64))
    return panel.y_axis(heatmap.YAxisConfig().axis_label("up to this value").unit("none"))


def rows(
    title: str, about: str, expr: str, columns: dict[str, str], *, runbook: Sequence[str] = ()
) -> table.Panel:
    """A table of labels, with the name of each column; `Value` is last."""
    query = ask(expr, now=True).format(PromQueryFormat.TABLE)
    panel = _panel(table.Panel(), (title, about, "short"), [query], runbook)
    order = {name: place for place, name in enumerate(columns)}
    options = {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": columns}
    return panel.with_transformation(
        models.DataTransformerConfig(id_val="organize", options=options)
    )


def sheet(
    uid: str,
    title: str,
    about: str,
    parts: Sequence[tuple[str, Sequence[Row]]],
    *,
    since: str,
    extra: Sequence[Builder[models.VariableModel]] = (),
) -> models.Dashboard:
    """A dashboard of sections, each with a name and rows of panels."""
    found = dashboard.Dashboard(title).uid(uid).description(about).tags(["cxrview"]).readonly()
    found.time(since, "now").refresh("30s").timezone("browser")
    found.tooltip(models.DashboardCursorSync.CROSSHAIR)
    others = dashboard.DashboardLink("cxrview").type(models.DashboardLinkType.DASHBOARDS)
    found.link(others.tags(["cxrview"]).as_dropdown(False).keep_time(True).include_vars(True))
    for variable in (*_variables(), *extra):
        found.with_variable(variable)
    made: list[models.Panel | models.RowPanel] = []
    y = 0
    for name, lying in parts:
        place = models.GridPos(x=0, y=y, w=WIDTH, h=1)
        made.append(dashboard.Row(name).id(len(made) + 1).grid_pos(place).build())
        y += 1
        for height, panels in lying:
            x = 0
            for width, panel in panels:
                panel.id(len(made) + 1).grid_pos(models.GridPos(x=x, y=y, w=width, h=height))
                made.append(panel.build())
                x += width
            y += height
    finished = found.build()
    finished.panels = made
    return finished


def textbox(name: str, label: str, default: str) -> dashboard.TextBoxVariable:
    """A variable whose value the user types."""
    found = dashboard.TextBoxVariable(name).label(label).default_value(default)
    return found.current(models.VariableOption(text=default, value=default, selected=True))


def _variables() -> list[Builder[models.VariableModel]]:
    """`namespace`, where All includes series without that label; `job` depends on it."""
    everything = models.VariableOption(text="All", value="$__all", selected=True)
    namespace = dashboard.QueryVariable("namespace").label("Namespace").all_value(".*")
    namespace.query("label_values(cxrview_build_info, namespace)")
    job = dashboard.QueryVariable("job").label("Job")
    job.query('label_values(cxrview_build_info{namespace=~"$namespace"}, job)')
    for variable in (namespace, job):
        variable.datasource(SOURCE).multi(True).include_all(True).current(everything)
        variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        variable.sort(models.VariableSort.ALPHABETICAL_ASC)
    runbook = textbox("runbook", "Runbook", "deploy/runbook.md")
    runbook.description("Where deploy/runbook.md is read; panels lead to its sections.")
    return [
        dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"),
        namespace,
        job,
        runbook,
    ]
