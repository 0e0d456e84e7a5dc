// The pictures of an explanation, as object URLs that are revoked

const STRONG_LOGITS = 8; // shown in full colour
const FRONTAL = [230, 90, 30]; // as in training/export/gallery.py
const LATERAL = [40, 120, 230];

export class Pictures {
  #most;
  #held = new Map(); // by the identifier of an item, the one that was used longest ago first

  constructor(most) {
    this.#most = most;
  }

  has(id) {
    return this.#held.has(id);
  }

  get size() {
    return this.#held.size;
  }

  get(id) {
    const found = this.#held.get(id);
    if (found) {
      this.#held.delete(id);
      this.#held.set(id, found);
    }
    return found ?? null;
  }

  // Keep the pictures of an item; those that were used longest ago are freed, but none of `needed`
  set(id, explanation, needed) {
    this.#free(id);
    this.#held.set(id, opened(explanation));
    for (const old of this.#held.keys()) {
      if (this.#held.size <= this.#most) break;
      if (!needed.has(old)) this.#free(old);
    }
  }

  clear() {
    for (const id of [...this.#held.keys()]) this.#free(id);
  }

  #free(id) {
    const found = this.#held.get(id);
    if (!found) return;
    URL.revokeObjectURL(found.thumbnail);
    if (found.frame) URL.revokeObjectURL(found.frame.url);
    this.#held.delete(id);
  }
}

function opened({ evidence, thumbnail, frame }) {
  return {
    thumbnail: urlOf(thumbnail, "image/png"),
    frame: frame && { ...frame, jpeg: null, url: urlOf(frame.jpeg, "image/jpeg") },
    evidence: evidence && coloured(evidence),
  };
}

const bytesOf = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const urlOf = (text, type) => URL.createObjectURL(new Blob([bytesOf(text)], { type }));

// Red, green, blue and opacity of each cell of the map
function coloured({ rows, columns, values, min, max }) {
  const pixels = new Uint8ClampedArray(4 * rows * columns);
  bytesOf(values).forEach((level, index) => {
    const logit = min + (level / 255) * (max - min);
    const opacity = 255 * Math.min(Math.abs(logit) / STRONG_LOGITS, 1);
    pixels.set([...(logit > 0 ? FRONTAL : LATERAL), opacity], 4 * index);
  });
  return new ImageData(pixels, columns, rows);
}
