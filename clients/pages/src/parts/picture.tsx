/** A product's picture, or a drawn one where there is none. */
import type { Product } from "@liveroom/client";
import { useState } from "preact/hooks";

const HUES = [18, 32, 350, 150, 205, 265];

/** A number from a text that stays the same, to choose a colour by. */
export function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (const letter of text) hash = Math.imul(hash ^ (letter.codePointAt(0) ?? 0), 0x01000193);
  return (hash ^ (hash >>> 15)) >>> 0;
}

/** A soft flat still life, tinted by the product's id. */
export function Drawn({ of }: { of: string }) {
  const hue = HUES[hashOf(of) % HUES.length];
  const tint = (s: number, l: number) => `hsl(${hue} ${s}% ${l}%)`;
  return (
    <svg viewBox="0 0 100 100" aria-hidden="true">
      <rect width="100" height="100" fill={tint(48, 88)} />
      <circle cx="68" cy="34" r="20" fill={tint(62, 79)} />
      <path d="M0 78q50-12 100 0v22H0z" fill={tint(40, 74)} />
      <path d="M33 42h34l4 38a5 5 0 0 1-5 5H34a5 5 0 0 1-5-5z" fill={tint(46, 54)} />
      <path
        d="M41 48v-9a9 9 0 0 1 18 0v9"
        fill="none"
        stroke={tint(46, 40)}
        stroke-width="4"
        stroke-linecap="round"
      />
      <path d="M33 42h9l-3 43h-5a5 5 0 0 1-5-5z" fill={tint(46, 61)} />
    </svg>
  );
}

export function Picture({ product }: { product: Pick<Product, "id" | "picture"> }) {
  const [missing, setMissing] = useState("");
  const source = product.picture;
  return (
    <div class="picture">
      {source && missing !== source ? (
        <img src={source} alt="" loading="lazy" onError={() => setMissing(source)} />
      ) : (
        <Drawn of={product.id} />
      )}
    </div>
  );
}
