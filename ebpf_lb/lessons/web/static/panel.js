// The panel beside the drawing: what became of a request, and what can be changed.

import { html } from "./dom.js";

export function storyPanel(story, close) {
  return [
    html("h2", {}, story.title, html("button", { class: "close", "aria-label": "Forget it", click: close }, "×")),
    html("p", { class: story.answered ? "good" : "bad" }, story.outcome),
    story.ways.length === 0 && html("p", {}, "Nobody saw a packet of it."),
    ...story.ways.map(wayPanel),
    ...story.remarks.map((remark) => html("p", { class: "remark" }, remark)),
  ];
}

function wayPanel(way) {
  const rewritings = way.taps.flatMap((tap) => tap.rewritings.map((one) => rewritingPanel(tap, one)));
  return html(
    "div",
    { class: way.towards ? "way request" : "way answer" },
    html("h3", {}, way.heading[0].toUpperCase() + way.heading.slice(1)),
    rewritings.length ? html("ol", {}, rewritings) : html("p", { class: "remark" }, "Nobody rewrote it."),
    way.end && html("p", { class: "bad" }, way.end),
    html("details", {}, html("summary", {}, `${way.taps.length} interfaces`), html("table", {}, way.taps.map(tapRow))),
  );
}

const rewritingPanel = (tap, one) =>
  html(
    "li",
    { "data-rewriting": one.name, "data-machine": tap.machine },
    html("b", {}, one.name),
    ` on ${tap.machine}`,
    one.hook && html("span", { class: "hook" }, `, ${one.hook}`),
    html("code", {}, html("s", {}, one.before), html("br"), one.after),
  );

const tapRow = (tap) =>
  html(
    "tr",
    {},
    html("td", {}, `${tap.machine.split("/").pop()} ${tap.interface} ${tap.outgoing ? "out" : "in"}`),
    html("td", {}, html("code", {}, tap.source, html("br"), `→ ${tap.destination}`, tap.tunnel && html("br"), tap.tunnel)),
  );

export const deploymentsPanel = (scene, act) => [
  html("h2", {}, "Deployments"),
  ...scene.deployments.map((one) => {
    const to = (replicas) => act("scale", { namespace: one.namespace, name: one.name, replicas });
    return html(
      "div",
      { class: "row", "data-deployment": one.id },
      html("span", {}, one.name, html("small", {}, ` ${one.ready} of ${one.replicas} ready`)),
      html("button", { "aria-label": `one pod less of ${one.name}`, disabled: one.replicas === 0, click: () => to(one.replicas - 1) }, "−"),
      html("button", { "aria-label": `one pod more of ${one.name}`, click: () => to(one.replicas + 1) }, "+"),
    );
  }),
];

export function selectedPanel(scene, id, act, choose) {
  const pod = scene.pods.find((one) => one.id === id);
  if (pod) return podPanel(pod, act, choose);
  const node = scene.nodes.find((one) => one.name === id);
  if (node) return nodePanel(node, scene, act, choose);
  return [html("p", { class: "remark" }, "Click a pod or a node to change it, a Service to see who serves it.")];
}

const askFrom = (id, choose) => html("button", { click: () => choose(id) }, "Ask from here");

function podPanel(pod, act, choose) {
  const ready = pod.state === "ready";
  const change = () => act("ready", { namespace: pod.namespace, name: pod.name, ready: !ready });
  return [
    html("h2", {}, `Pod ${pod.name}`),
    html("p", {}, html("code", {}, pod.addresses.flatMap((one) => [one, html("br")]))),
    html("div", { class: "row" }, askFrom(pod.id, choose), html("button", { id: "ready", click: change }, ready ? "Make it unready" : "Make it ready")),
  ];
}

function nodePanel(node, scene, act, choose) {
  const runs = node.agent !== "none" && node.agent !== "dead";
  const others = scene.nodes.filter((other) => other !== node);
  return [
    html("h2", {}, node.name),
    html("p", {}, html("code", {}, node.addresses.flatMap((one) => [one, html("br")]))),
    html("div", { class: "row" }, askFrom(node.name, choose),
      html("button", { id: "agent", click: () => act("agent", { node: node.name, runs: !runs }) }, runs ? "Stop its agent" : "Start its agent")),
    ...others.map((other) => {
      const works = !node.broken.includes(other.name);
      return html(
        "div",
        { class: "row" },
        html("span", {}, `Route to ${other.name}'s pods`, html("small", { class: works ? "good" : "bad" }, works ? " works" : " is broken")),
        html("button", { "data-route": other.name, click: () => act("route", { node: node.name, to: other.name, works: !works }) }, works ? "Break" : "Mend"),
      );
    }),
  ];
}
