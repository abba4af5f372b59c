// The cluster as a drawing. All looks are attributes of the elements, so that a saved picture
// needs nothing else.

import { button, svg, text } from "./dom.js";
import { WIDTH, corners, place } from "./layout.js";

const PALETTE = ["#9c36b5", "#1971c2", "#e8590c", "#0c8599", "#c2255c", "#5f3dc4", "#846358", "#66a80f"];
const REQUEST = "#1971c2";
const ANSWER = "#2f9e44";
const BAD = "#e03131";
const GREY = "#868e96";
const STATES = { ready: ANSWER, "not ready": "#f08c00", terminating: GREY };
const AGENTS = { healthy: ["agent runs", ANSWER], none: ["agent stopped", GREY] };
const FONT = "'DejaVu Sans', Verdana, 'Helvetica Neue', Arial, sans-serif";

/** `chosen`: {client, service, selected}, ids of what is marked. `click`: {client, service, pod,
 * node}, told what was clicked. */
export function drawMap(scene, story, chosen, click) {
  const places = place(scene);
  const colours = new Map(scene.services.map((one, at) => [one.id, PALETTE[at % PALETTE.length]]));
  const service = scene.services.find((one) => one.id === chosen.service);
  return svg(
    "svg",
    {
      xmlns: "http://www.w3.org/2000/svg",
      viewBox: `0 0 ${WIDTH} ${places.height}`,
      preserveAspectRatio: "xMidYMin",
      "font-family": FONT,
      "data-pods": scene.pods.length,
    },
    svg("title", {}, story ? story.title : `Lab ${scene.lab}`),
    svg("rect", { width: WIDTH, height: places.height, fill: "#ffffff" }),
    scene.nodes.map((node) => drawNode(node, places, chosen, click)),
    wires(places),
    service && endpoints(service, places, colours.get(service.id)),
    story && svg("g", { "data-story": story.title, "pointer-events": "none" }, story.ways.map((way) => drawWay(way, places))),
    scene.nodes.map((node) => drawUplink(node.name, places, chosen, click)),
    scene.services.map((one) => drawService(one, places, colours, chosen, click)),
    scene.pods.map((pod) => places.pods.has(pod.id) && drawPod(pod, scene, places, colours, chosen, click)),
    drawBox("router", "", places, chosen),
    scene.clients.map((one) => drawBox(one.name, one.addresses[0], places, chosen, click)),
    story && badges(story, places),
  );
}

const ring = (marked, colour) => (marked ? { stroke: colour, "stroke-width": 3 } : {});

function drawService(one, places, colours, chosen, click) {
  const { x, y, width, height } = places.services.get(one.id);
  const ready = one.endpoints.filter((each) => each.ready).length;
  const colour = colours.get(one.id);
  const count = one.externalName ? "" : `${ready}/${one.endpoints.length}`; // a name leads to no endpoints
  const leadsTo = one.externalName ? `→ ${one.externalName}` : `${one.clusterIPs[0] ?? "headless"}  ${one.ports.join(" ")}`;
  return button(
    `Service ${one.id}`,
    () => click.service(one.id),
    { "data-service": one.id },
    svg("rect", { x, y, width, height, rx: 10, fill: "#fff", stroke: "#ced4da", "stroke-width": 1.5, ...ring(chosen.service === one.id, colour) }),
    svg("rect", { x: x + 10, y: y + 12, width: 6, height: height - 24, rx: 3, fill: colour }),
    text(x + 26, y + 24, one.name, { size: 14, bold: true, width: width - 80 }),
    text(x + width - 12, y + 24, count, { size: 13, bold: true, "text-anchor": "end", fill: ready ? ANSWER : BAD }),
    text(x + 26, y + 42, `${one.type}, ${one.namespace}`, { size: 11, fill: GREY, width: width - 36 }),
    text(x + 26, y + 60, leadsTo, { size: 11, mono: true, width: width - 36 }),
  );
}

function drawNode(node, places, chosen, click) {
  const { x, y, width, height } = places.nodes.get(node.name);
  const strip = places.strips.get(node.name);
  const [words, colour] = AGENTS[node.agent] ?? [`agent ${node.agent}`, BAD];
  const right = { size: 11, "text-anchor": "end" };
  return button(
    node.name,
    () => click.node(node.name),
    { "data-node": node.name, "data-agent": node.agent },
    svg("rect", { x, y, width, height, rx: 12, fill: "#f8f9fa", stroke: "#ced4da", "stroke-width": 1.5, ...ring(chosen.selected === node.name, "#495057") }),
    text(x + 16, y + 24, node.name, { size: 15, bold: true }),
    text(x + 16, y + 40, node.addresses[0] ?? "", { size: 11, mono: true, fill: GREY }),
    svg("circle", { cx: x + width - 22, cy: y + 20, r: 6, fill: colour }),
    text(x + width - 36, y + 24, words, { ...right, fill: colour }),
    node.broken.length > 0 &&
      text(x + width - 16, y + 40, `no route to ${node.broken.join(", ")}`, { ...right, fill: BAD, bold: true }),
    svg("line", { x1: x + 16, x2: x + width - 16, y1: strip.y - 26, y2: strip.y - 26, stroke: "#dee2e6" }),
  );
}

/** The interface by which a node hangs on the wire; its programs' rewriting is told beside it. */
function drawUplink(name, places, chosen, click) {
  const { x, y } = places.strips.get(name);
  return button(
    `eth0 of ${name}`,
    () => click.node(name),
    {},
    svg("rect", { x: x - 26, y: y - 13, width: 52, height: 26, rx: 6, fill: "#fff", stroke: "#adb5bd", ...ring(chosen.client === name, REQUEST) }),
    text(x, y + 4, "eth0", { size: 11, mono: true, "text-anchor": "middle" }),
  );
}

function drawPod(pod, scene, places, colours, chosen, click) {
  const { x, y, width, height } = places.pods.get(pod.id);
  const colour = STATES[pod.state] ?? GREY;
  const served = scene.services.flatMap((one) =>
    one.endpoints.filter((each) => each.pod === pod.id).map((each) => [one, each.ready]),
  );
  const marks = { ...ring(chosen.selected === pod.id, "#495057"), ...ring(chosen.client === pod.id, REQUEST) };
  return button(
    `pod ${pod.id}`,
    () => click.pod(pod.id),
    { "data-pod": pod.id, "data-state": pod.state },
    svg("rect", { x, y, width, height, rx: 8, fill: pod.state === "ready" ? "#ebfbee" : "#fff4e6", stroke: colour, "stroke-width": 1.5, "stroke-dasharray": pod.state === "ready" ? undefined : "5 4", ...marks }),
    text(x + 12, y + 19, pod.name, { bold: true, width: width - 24 - 16 * served.length }),
    text(x + 12, y + 36, pod.addresses[0] ?? "", { size: 11, mono: true, fill: GREY }),
    text(x + width - 12, y + 36, pod.state, { size: 11, "text-anchor": "end", fill: colour }),
    served.map(([one, ready], at) =>
      svg(
        "circle",
        { cx: x + width - 16 - 15 * at, cy: y + 15, r: 5, fill: ready ? colours.get(one.id) : "#fff", stroke: colours.get(one.id), "stroke-width": 2 },
        svg("title", {}, `${one.id}: ${ready ? "ready" : "not ready"}`),
      ),
    ),
  );
}

function drawBox(name, address, places, chosen, click) {
  const { x, y, width, height } = places.machines.get(name);
  const middle = { "text-anchor": "middle" };
  const shapes = [
    svg("rect", { x, y, width, height, rx: 10, fill: click ? "#e7f5ff" : "#f1f3f5", stroke: "#adb5bd", "stroke-width": 1.5, ...ring(chosen.client === name, REQUEST) }),
    text(x + width / 2, y + (address ? 21 : 30), name, { size: 14, bold: true, ...middle }),
    address && text(x + width / 2, y + 38, address, { size: 11, mono: true, fill: GREY, ...middle }),
  ];
  return click ? button(name, () => click.client(name), { "data-client": name }, shapes) : svg("g", {}, shapes);
}

function wires(places) {
  const router = places.machines.get("router");
  const middle = router.x + router.width / 2;
  const line = (x1, y1, x2, y2) => svg("line", { x1, y1, x2, y2, stroke: "#ced4da", "stroke-width": 3 });
  const parts = [];
  for (const { y, nodes } of places.wires) {
    const ends = nodes.map((name) => places.strips.get(name).x);
    parts.push(line(Math.min(middle, ...ends), y, Math.max(middle, ...ends), y));
    parts.push(line(middle, y, middle, router.y));
    for (const name of nodes) {
      const strip = places.strips.get(name);
      parts.push(line(strip.x, strip.y, strip.x, y));
    }
  }
  for (const [name, box] of places.machines)
    if (name !== "router") parts.push(line(box.x + box.width / 2, box.y + box.height / 2, middle, router.y + router.height / 2));
  return svg("g", {}, parts);
}

/** Who serves a Service: from its card to its pods by way of the gap above the nodes, so that it
 * crosses no words; dashed where not ready. */
function endpoints(service, places, colour) {
  const card = places.services.get(service.id);
  const x = card.x + card.width / 2;
  const top = Math.min(...[...places.nodes.values()].map((node) => node.y)) - 12;
  const lines = service.endpoints.map(({ pod, ready }) => {
    const there = places.pods.get(pod);
    if (!there) return undefined;
    const end = there.x + there.width / 2;
    const d = `M ${x} ${card.y + card.height} V ${top} H ${end} V ${there.y}`;
    return svg("path", { d, fill: "none", stroke: colour, "stroke-width": 2, "stroke-linejoin": "round", opacity: 0.55, "stroke-dasharray": ready ? undefined : "3 6" });
  });
  return svg("g", {}, lines);
}

// --- a captured request

function drawWay(way, places) {
  const stops = way.taps.map((tap) => tap.machine).filter((name, at, all) => name !== all[at - 1]);
  const shift = way.towards ? -4 : 4; // both ways side by side
  const points = corners(places, stops).map(([x, y]) => [x + shift, y + shift]);
  if (!points.length) return undefined;
  const d = `M ${points.map((point) => point.join(" ")).join(" L ")}`;
  const colour = way.towards ? REQUEST : ANSWER;
  const [x, y] = points.at(-1);
  const times = way.towards ? ["0;1;1", "0;0.45;1"] : ["0;0;1;1", "0;0.5;0.95;1"];
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  return svg(
    "g",
    {},
    svg("path", { d, fill: "none", stroke: colour, "stroke-width": 4, "stroke-linejoin": "round", "stroke-linecap": "round", opacity: 0.8 }),
    !still &&
      svg("circle", { r: 7, fill: colour, stroke: "#fff", "stroke-width": 2 },
        svg("animateMotion", { path: d, dur: "5s", repeatCount: "indefinite", keyPoints: times[0], keyTimes: times[1], calcMode: "linear" })),
    way.end && svg("path", { d: `M ${x - 9} ${y - 9} l 18 18 m 0 -18 l -18 18`, stroke: BAD, "stroke-width": 5, "stroke-linecap": "round" }),
  );
}

/** What a node rewrote, beside its eth0: of the request on the left, of the answer on the right. */
function badges(story, places) {
  return story.ways.flatMap((way) => {
    const byMachine = Map.groupBy(way.taps.flatMap((tap) => tap.rewritings.map((one) => [tap.machine, one.name])), ([name]) => name);
    return [...byMachine].map(([machine, rows]) => {
      const strip = places.strips.get(machine);
      return strip && badge(strip, [...new Set(rows.map(([, name]) => name))], way.towards);
    });
  });
}

function badge(strip, names, towards) {
  const words = names.length > 1 ? names.map((name) => name.replace(" undone", "")).join(" + ") + (towards ? "" : " undone") : names[0];
  const width = words.length * 11 * 0.65 + 18;
  const x = towards ? strip.x - 36 - width : strip.x + 36;
  return svg(
    "g",
    { "data-badge": words },
    svg("rect", { x, y: strip.y - 11, width, height: 22, rx: 11, fill: "#fff3bf", stroke: towards ? REQUEST : ANSWER, "stroke-width": 1.5 }),
    text(x + width / 2, strip.y + 4, words, { size: 11, bold: true, "text-anchor": "middle", fill: towards ? REQUEST : ANSWER }),
  );
}
