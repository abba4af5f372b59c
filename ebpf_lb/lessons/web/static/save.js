// Pictures as files.

const SCALE = 2; // a PNG's dots for each unit of the drawing

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** An SVG element as a document that stands by itself. */
function documentOf(drawing) {
  const copy = drawing.cloneNode(true);
  const { width, height } = drawing.viewBox.baseVal;
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  return { text: new XMLSerializer().serializeToString(copy), width, height };
}

export function saveSvg(drawing, name) {
  download(new Blob([documentOf(drawing).text], { type: "image/svg+xml" }), `${name}.svg`);
}

export async function savePng(drawing, name) {
  const { text, width, height } = documentOf(drawing);
  const source = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  const image = new Image();
  image.src = source;
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: width * SCALE, height: height * SCALE });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(source);
  canvas.toBlob((blob) => download(blob, `${name}.png`));
}
