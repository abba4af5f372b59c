// The page: keeps what is chosen, and draws anew whatever changed.

import { follow, post } from "./api.js";
import { html } from "./dom.js";
import { drawMap } from "./map.js";
import { deploymentsPanel, selectedPanel, storyPanel } from "./panel.js";
import { savePng, saveSvg } from "./save.js";

const at = (id) => document.getElementById(id);
const chosen = { client: "client", service: "", target: "", selected: "" };
let scene; // as the server tells it
let story; // the request that is shown

// --- drawing

function shown() {
  if (at("system").checked) return scene;
  const own = (one) => one.namespace !== "kube-system" && one.id !== "default/kubernetes";
  const kept = Object.fromEntries(["pods", "services", "deployments"].map((key) => [key, scene[key].filter(own)]));
  return { ...scene, ...kept };
}

function draw() {
  if (!scene) return;
  const visible = shown();
  at("lab").textContent = `lab ${scene.lab}`;
  fillForm(visible);
  const focused = document.activeElement?.getAttribute("aria-label");
  at("map").replaceChildren(drawMap(visible, story, chosen, click));
  at("selected").replaceChildren(...selectedPanel(visible, chosen.selected, act, chooseClient));
  at("deployments").replaceChildren(...deploymentsPanel(visible, act));
  if (focused) document.querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
}

function fillForm(visible) {
  const clients = [...visible.clients.map((one) => one.name), ...visible.nodes.map((one) => one.name), ...visible.pods.map((one) => one.id)];
  fillSelect("client", clients.map((name) => [name, name]));
  fillSelect("service", visible.services.map((one) => [one.id, `Service ${one.id}`]));
  const targets = visible.services.find((one) => one.id === chosen.service)?.targets ?? [];
  const text = (one) => (one.address.includes(":") ? `[${one.address}]` : one.address) + `:${one.port}`;
  fillSelect("target", targets.map((one) => [JSON.stringify(one), `${one.kind} ${text(one)} ${one.protocol}`]));
  at("send").disabled = !targets.length || at("send").dataset.busy === "yes";
}

function fillSelect(name, options) {
  if (!options.some(([value]) => value === chosen[name])) chosen[name] = options[0]?.[0] ?? "";
  at(name).replaceChildren(...options.map(([value, words]) => html("option", { value }, words)));
  at(name).value = chosen[name];
}

function show(which) {
  for (const name of ["map", "way"]) {
    at(name).hidden = name !== which;
    at(`show-${name}`).setAttribute("aria-pressed", name === which);
  }
}

function tell(found) {
  story = found;
  at("story").hidden = !story;
  at("show-way").disabled = !story;
  at("story").replaceChildren(...(story ? storyPanel(story, () => tell(undefined)) : []).filter(Boolean));
  const drawing = story && new DOMParser().parseFromString(story.drawing, "image/svg+xml").documentElement;
  at("way").replaceChildren(...(drawing ? [document.importNode(drawing, true)] : []));
  if (!story) show("map");
  draw();
}

// --- doing

async function attempt(work) {
  at("error").hidden = true;
  try {
    return await work();
  } catch (error) {
    at("error").textContent = error.message;
    at("error").hidden = false;
    return undefined;
  }
}

const act = (action, body) => attempt(() => post(action, body));

function chooseClient(id) {
  chosen.client = id;
  draw();
}

const select = (id) => {
  chosen.selected = id;
  draw();
};

const click = {
  client: chooseClient,
  service: (id) => {
    chosen.service = id;
    draw();
  },
  pod: select,
  node: select,
};

async function send(event) {
  event.preventDefault();
  const { kind, ...target } = JSON.parse(chosen.target);
  const service = `${chosen.service} by ${kind}`;
  at("send").dataset.busy = "yes";
  draw();
  const found = await attempt(() => post("request", { client: chosen.client, service, ...target }));
  at("send").dataset.busy = "";
  tell(found ?? story);
}

at("ask").addEventListener("submit", send);
for (const name of ["client", "service", "target"])
  at(name).addEventListener("change", () => {
    chosen[name] = at(name).value;
    draw();
  });
at("system").addEventListener("change", draw);
at("show-map").addEventListener("click", () => show("map"));
at("show-way").addEventListener("click", () => show("way"));
const picture = () => document.querySelector("figure:not([hidden]) > svg");
const fileName = () => (story?.title ?? `lab ${scene?.lab}`).replace(/[^\w.-]+/g, "-");
at("save-svg").addEventListener("click", () => saveSvg(picture(), fileName()));
at("save-png").addEventListener("click", () => attempt(() => savePng(picture(), fileName())));

follow(
  (next) => {
    scene = next;
    draw();
  },
  (problem) => {
    at("state").textContent = problem || "live";
    at("state").className = problem ? "bad" : "good";
  },
);
