/** Products by SKU, also those that have left the shelf while this page looked. */
import type { Product } from "@liveroom/client";

const KEPT_MAX = 1000;

export class Goods {
  readonly #bySku = new Map<string, Product>();

  /** Take in what can be seen now; what was seen last is kept. */
  see(products: Product[]): void {
    for (const product of products) {
      for (const { id } of product.skus) {
        this.#bySku.delete(id);
        this.#bySku.set(id, product);
      }
    }
    for (const id of [...this.#bySku.keys()].slice(0, -KEPT_MAX)) this.#bySku.delete(id);
  }

  of(sku: string): Product | undefined {
    return this.#bySku.get(sku);
  }
}

/** What a SKU of a product is called: with its own name where there are several. */
export function nameOf(product: Product, sku: string): string {
  const name = product.skus.find((one) => one.id === sku)?.name;
  return product.skus.length > 1 && name ? `${product.title} · ${name}` : product.title;
}
