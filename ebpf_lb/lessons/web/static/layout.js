// Where everything stands in the drawing: a pure function of the scene. Services above, nodes with
// their pods below them, then the wire between the nodes, the router and the clients.

export const WIDTH = 1180;
const MARGIN = 20;
const GAP = 16;
const SERVICE = { least: 180, most: 270, height: 74 };
const POD = { least: 250, height: 46, gap: 8 };
const NODE = { inRow: 4, head: 52, strip: 62, pad: 16 };
const BOX = { width: 190, height: 50 };
const CLIENTS_IN_ROW = 4; // two on each side of the router

/** {services, nodes, pods, machines: Map id -> {x, y, width, height}; strips, wires; height} */
export function place(scene) {
  const services = new Map();
  let y = MARGIN;
  y = grid(scene.services, services, y, SERVICE.least, SERVICE.most, SERVICE.height) + 22;

  const nodes = new Map();
  const pods = new Map();
  const strips = new Map();
  const wires = [];
  for (let first = 0; first < scene.nodes.length; first += NODE.inRow) {
    const row = scene.nodes.slice(first, first + NODE.inRow);
    const width = (WIDTH - 2 * MARGIN - GAP * (row.length - 1)) / row.length;
    const inner = width - 2 * NODE.pad;
    const columns = Math.max(1, Math.floor((inner + POD.gap) / (POD.least + POD.gap)));
    const podsOf = (node) => scene.pods.filter((pod) => pod.node === node.name);
    const lines = Math.max(1, ...row.map((node) => Math.ceil(podsOf(node).length / columns)));
    const height = NODE.head + lines * (POD.height + POD.gap) + NODE.strip;
    row.forEach((node, column) => {
      const x = MARGIN + column * (width + GAP);
      nodes.set(node.name, { x, y, width, height });
      strips.set(node.name, { x: x + width / 2, y: y + height - NODE.strip / 2, width });
      const podWidth = (inner - POD.gap * (columns - 1)) / columns;
      podsOf(node).forEach((pod, number) => {
        const line = Math.floor(number / columns);
        pods.set(pod.id, {
          x: x + NODE.pad + (number % columns) * (podWidth + POD.gap),
          y: y + NODE.head + line * (POD.height + POD.gap),
          width: podWidth,
          height: POD.height,
        });
      });
    });
    y += height + 26;
    wires.push({ y, nodes: row.map((node) => node.name) });
    y += 20;
  }
  const machines = new Map();
  y += 12;
  machines.set("router", { x: WIDTH / 2 - BOX.width / 2, y, ...BOX });
  scene.clients.forEach((client, number) => {
    const inRow = number % CLIENTS_IN_ROW;
    const side = inRow % 2 ? 1 : -1;
    const step = (Math.floor(inRow / 2) + 1) * (BOX.width + 50);
    const below = Math.floor(number / CLIENTS_IN_ROW) * (BOX.height + GAP);
    machines.set(client.name, { x: WIDTH / 2 - BOX.width / 2 + side * step, y: y + below, ...BOX });
  });
  const bottom = Math.max(...[...machines.values()].map((box) => box.y + box.height));
  return { services, nodes, pods, strips, wires, machines, height: bottom + MARGIN };
}

function grid(things, places, y, least, most, height) {
  const inRow = Math.max(1, Math.floor((WIDTH - 2 * MARGIN + GAP) / (least + GAP)));
  for (let first = 0; first < things.length; first += inRow) {
    const row = things.slice(first, first + inRow);
    const width = Math.min(most, (WIDTH - 2 * MARGIN - GAP * (row.length - 1)) / row.length);
    const all = width * row.length + GAP * (row.length - 1);
    row.forEach((thing, number) =>
      places.set(thing.id, { x: (WIDTH - all) / 2 + number * (width + GAP), y, width, height }),
    );
    y += height + GAP;
  }
  return y;
}

/** The corners of a packet's way between the machines that saw it, in their order. */
export function corners(places, stops) {
  const points = [];
  stops.forEach((stop, number) => {
    const here = anchor(places, stop);
    const before = number ? anchor(places, stops[number - 1]) : undefined;
    if (!here) return;
    if (before) points.push(...between(before, here));
    points.push(here);
  });
  return points.map(({ x, y }) => [x, y]);
}

function anchor(places, name) {
  const strip = places.strips.get(name);
  if (strip) {
    const wire = places.wires.find((each) => each.nodes.includes(name));
    return { kind: "node", x: strip.x, y: strip.y, wire: wire.y };
  }
  const pod = places.pods.get(name);
  if (pod) return { kind: "pod", x: pod.x + 8, y: pod.y + pod.height / 2, side: pod.x - 7 };
  const box = places.machines.get(name);
  return box && { kind: "box", x: box.x + box.width / 2, y: box.y + box.height / 2 };
}

function between(from, to) {
  if (from.kind === "node" && to.kind === "node")
    return [{ x: from.x, y: from.wire }, { x: to.x, y: from.wire }];
  if (from.kind === "node" && to.kind === "box")
    return [{ x: from.x, y: from.wire }, { x: to.x, y: from.wire }];
  if (from.kind === "box" && to.kind === "node")
    return [{ x: from.x, y: to.wire }, { x: to.x, y: to.wire }];
  // along the pods' left, so that no other pod is crossed
  if (from.kind === "pod" && to.kind === "node")
    return [{ x: from.side, y: from.y }, { x: from.side, y: to.y }];
  if (from.kind === "node" && to.kind === "pod")
    return [{ x: to.side, y: from.y }, { x: to.side, y: to.y }];
  return [];
}
