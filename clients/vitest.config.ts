import { defineConfig } from "vitest/config";

export default defineConfig({
  resolve: { conditions: ["source", "module", "browser", "development"] },
  test: {
    environment: "happy-dom",
    include: ["*/tests/**/*.test.{ts,tsx}"],
  },
});
