"use strict";
// Texts are put into the page by textContent alone: none of them is ever parsed as HTML.
(function () {
  const PAGE = 10;
  const data = JSON.parse(document.getElementById("data").textContent || '{"examples":[],"lines":[]}');
  const at = (id) => document.getElementById(id);
  if (!data.examples.length || !at("list")) return;

  const text = (numbers) => numbers.map((number) => data.lines[number]).join("\n");
  const make = (tag, parent, content, name) => {
    const made = document.createElement(tag);
    if (content !== undefined) made.textContent = content;
    if (name) made.className = name;
    parent.append(made);
    return made;
  };
  const written = (parent, content) => { make("pre", parent, content).dir = "auto"; };
  const isRevised = (example) => example.steps.some((step) => step.changes);
  const searched = new Map(data.examples.map((example) => [
    example,
    [example.id, example.topic, ...[example.query, example.positive, ...example.negatives].map(text)].join("\n").toLowerCase(),
  ]));

  for (const name of ["kind", "language", "split"]) {
    const values = [...new Set(data.examples.map((example) => example[name]))].filter(Boolean).sort();
    values.forEach((value) => { make("option", at(name), value).value = value; });
    at(name).parentElement.hidden = values.length < 2;
  }
  at("revised").parentElement.hidden = !data.examples.some(isRevised);

  function fill(parent, example) {
    const list = make("ol", parent, undefined, "way");
    for (const step of example.steps) {
      const item = make("li", list);
      make("h4", item, step.title);
      for (const [name, lines] of step.fields) {
        make("p", item, name, "label");
        written(item, text(lines));
      }
      for (const [name, changes] of step.changes || []) {
        make("p", item, name + ", what changed", "label");
        const shown = make("pre", item);
        shown.dir = "auto";
        for (const [sign, words] of changes) make({"-": "del", "+": "ins"}[sign] || "span", shown, words);
      }
    }
    if (!example.steps.length) make("p", parent, "Nothing of its way back could be read.", "none");
  }

  function card(parent, example) {
    const article = make("article", parent, undefined, "example");
    const facts = [example.kind, example.language, example.topic, example.split].filter(Boolean).join(" · ");
    make("p", article, facts, "quiet").dir = "auto";
    const fields = [["instruction", example.instruction], ["query", example.query], ["positive", example.positive]];
    example.negatives.forEach((lines) => fields.push(["negative", lines]));
    for (const [name, lines] of fields) {
      if (!text(lines)) continue;
      const row = make("div", article, undefined, "field " + name);
      make("span", row, name, "label");
      make("bdi", row, text(lines)).dir = "auto";
    }
    const details = make("details", article);
    make("summary", details, "The way back of " + example.id);
    details.addEventListener("toggle", () => { if (details.open && details.children.length < 2) fill(details, example); });
  }

  let page = 0;
  function show() {
    const words = at("search").value.toLowerCase();
    const chosen = data.examples.filter((example) =>
      ["kind", "language", "split"].every((name) => !at(name).value || example[name] === at(name).value) &&
      (!at("revised").checked || isRevised(example)) && searched.get(example).includes(words));
    const pages = Math.max(1, Math.ceil(chosen.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    at("list").replaceChildren();
    chosen.slice(page * PAGE, (page + 1) * PAGE).forEach((example) => card(at("list"), example));
    at("matches").textContent = chosen.length + " of " + data.examples.length + " examples";
    at("page").textContent = "page " + (page + 1) + " of " + pages;
    at("before").disabled = page === 0;
    at("after").disabled = page === pages - 1;
  }
  function turn(by) {
    page += by;
    show();
    at("h-examples").focus();
    at("h-examples").scrollIntoView();
  }
  at("filters").addEventListener("input", () => { page = 0; show(); });
  at("filters").addEventListener("submit", (event) => event.preventDefault());
  at("before").addEventListener("click", () => turn(-1));
  at("after").addEventListener("click", () => turn(1));
  show();
})();
// A printed page has no summaries to open.
addEventListener("beforeprint", () => {
  document.querySelectorAll("details.samples").forEach((details) => { details.open = true; });
});
