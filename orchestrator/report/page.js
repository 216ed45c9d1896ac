"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const scheme = window.matchMedia("(prefers-color-scheme: dark)");
  const phone = window.matchMedia("(max-width: 760px)");

  function theme() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue("--" + name).trim();
    const names = ["ink", "muted", "line", "card", "accent", "second", "third", "thirdsoft",
      "good", "bad", "text2"];
    const found = Object.fromEntries(names.map((name) => [name, colour(name)]));
    found.sequential = [[0, colour("accentsoft")], [1, colour("accentdeep")]];
    found.diverging = [[0, colour("seconddeep")], [0.5, found.card],
      [1, colour("accentdeep")]];
    return found;
  }

  // Replaces "theme:accent" and the like wherever they stand in a figure.
  function dress(value, colours) {
    if (typeof value === "string" && value.startsWith("theme:")) {
      return colours[value.slice(6)] ?? value;
    }
    if (Array.isArray(value)) return value.map((item) => dress(item, colours));
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(
        Object.entries(value).map(([key, item]) => [key, dress(item, colours)]));
    }
    return value;
  }

  function layout(figure, colours) {
    const given = dress(figure.layout, colours);
    const base = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", height: figure.height,
      font: { color: colours.ink, size: 12, family: "system-ui, sans-serif" },
      margin: { l: 52, r: 14, t: 14, b: 44 },
      legend: { orientation: "h", y: 1.02, x: 0, yanchor: "bottom" },
      hoverlabel: { align: "left" },
      colorway: [colours.accent, colours.second, colours.third],
      // A drag on a phone is meant to scroll the page.
      dragmode: phone.matches ? false : "zoom",
    };
    for (const name of ["xaxis", "yaxis"]) {
      if (given[name]) {
        given[name] = { gridcolor: colours.line, zerolinecolor: colours.line,
          linecolor: colours.line, fixedrange: phone.matches, ...given[name] };
      }
    }
    return { ...base, ...given };
  }

  function data(figure, colours) {
    return dress(figure.data, colours).map((trace) => {
      if (trace.type !== "parcoords") return trace;
      const font = { color: colours.ink, size: 12 };
      // The lowest score must still be a line that can be seen.
      const scale = [[0, colours.muted], [1, colours.accent]];
      return { ...trace, line: { ...trace.line, colorscale: scale },
        labelfont: font, tickfont: { ...font, size: 11 },
        rangefont: { color: "rgba(0,0,0,0)", size: 1 },
        unselected: { line: { color: colours.line } } };
    });
  }

  function draw() {
    const colours = theme();
    for (const figure of figures) {
      Plotly.react("plot-" + figure.name, data(figure, colours), layout(figure, colours),
        { responsive: true, displayModeBar: false });
    }
  }

  draw();
  // Plotly follows the window only; a card can also change its width without it.
  const follow = new ResizeObserver((entries) => {
    for (const { target } of entries) Plotly.Plots.resize(target);
  });
  for (const figure of figures) follow.observe(document.getElementById("plot-" + figure.name));
  scheme.addEventListener("change", draw);
  phone.addEventListener("change", draw);
})();
