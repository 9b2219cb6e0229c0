import { defineConfig } from "vite";
import { viteSingleFile } from "vite-plugin-singlefile";

/** The report of a bench run: one file, with a place for the run that the load tester fills. */
export default defineConfig({
  plugins: [viteSingleFile()],
  resolve: { conditions: ["source", "module", "browser"] },
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: "../../liveroom/web/built",
    emptyOutDir: false,
    target: "es2022",
    rollupOptions: { input: new URL("report.html", import.meta.url).pathname },
  },
});
