import { defineConfig, type Plugin } from "vite";

const page = (name: string) => new URL(`${name}.html`, import.meta.url).pathname;

/** In development the pages stand at the addresses the server gives them. */
const addresses: Plugin = {
  name: "addresses",
  configureServer({ middlewares }) {
    middlewares.use((request, _answer, next) => {
      const [, page] = /^\/(room|console)\/[^/]+$/.exec(request.url ?? "") ?? [];
      if (page) request.url = `/${page}.html`;
      next();
    });
  },
};

export default defineConfig({
  plugins: [addresses],
  resolve: { conditions: ["source", "module", "browser"] },
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  server: {
    proxy: {
      "/v1": "http://127.0.0.1:8000",
      "/pictures": "http://127.0.0.1:8000",
      "/ws": { target: "ws://127.0.0.1:8000", ws: true },
    },
  },
  build: {
    outDir: "../../liveroom/web/built",
    emptyOutDir: true,
    target: "es2022",
    // The policy of the server allows nothing inline, so small files stay files.
    assetsInlineLimit: 0,
    modulePreload: {
      polyfill: false,
      // What a page needs at once is named in its HTML; what comes later loads by itself.
      resolveDependencies: (_file, files, { hostType }) => (hostType === "html" ? files : []),
    },
    rollupOptions: {
      input: { index: page("index"), room: page("room"), console: page("console") },
    },
  },
});
