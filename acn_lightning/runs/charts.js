"use strict";
const charts = JSON.parse(document.getElementById("charts").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");

function colours(printed) {
  const night = dark.matches && !printed;
  return { font: night ? "#e6e9ee" : "#1d2129", grid: night ? "#333a44" : "#dde1e7", ground: night ? "#1d2229" : "#ffffff" };
}

function layout(chart, printed) {
  const { font, grid, ground } = colours(printed);
  const axis = { gridcolor: grid, linecolor: grid, zeroline: false, automargin: true, title: { text: "" } };
  return {
    margin: { l: 8, r: 8, t: 6, b: 8 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: font, size: 12, family: "system-ui, sans-serif" }, hovermode: "x unified",
    hoverlabel: { bgcolor: ground, bordercolor: grid, font: { color: font } },
    xaxis: { ...axis, rangemode: "tozero", nticks: 7 }, yaxis: { ...axis, nticks: 6 },
    showlegend: chart.legend, legend: { orientation: "h", y: -0.14, x: 0 },
  };
}

function draw(place) {
  const chart = charts[place.dataset.chart];
  const lines = chart.lines.map((line) => ({
    type: "scatter", mode: line.x.length > 1 ? "lines" : "markers", name: line.name, x: line.x, y: line.y,
    line: { color: line.colour, width: 2, dash: line.dash }, marker: { color: line.colour, size: 7 },
    hovertemplate: "%{y:.5~g}",
  }));
  place.dataset.drawn = "yes";
  return Plotly.newPlot(place, lines, layout(chart, false), { responsive: true, displayModeBar: false });
}

function drawn() { return [...document.querySelectorAll("[data-drawn]")]; }

function repaint(printed) {
  for (const place of drawn()) Plotly.relayout(place, layout(charts[place.dataset.chart], printed));
}

// Charts out of sight are drawn when they are opened: a page of many metrics opens at once.
const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (isIntersecting && !target.dataset.drawn) draw(target);
  }
}, { rootMargin: "400px" });

async function start() {
  const bytes = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  document.querySelectorAll(".chart").forEach((place) => seen.observe(place));
  dark.addEventListener("change", () => repaint(false));
  addEventListener("beforeprint", () => {
    document.querySelectorAll(".chart").forEach((place) => {
      if (place.offsetParent && !place.dataset.drawn) draw(place);
    });
    repaint(true);
  });
  addEventListener("afterprint", () => repaint(false));
  document.body.dataset.ready = "yes";
}
if (charts.length) start();
