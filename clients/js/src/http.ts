/** The HTTP side of the contract: JSON in and out, problem+json as errors. */
import { fromWire, Unavailable } from "./errors.ts";

export interface Http {
  get<T>(path: string): Promise<T>;
  post<T>(path: string, body?: object): Promise<T>;
}

/** Calls to one server; `token` is asked for at each call. */
export function http(base = "", token: () => string | null = () => null): Http {
  async function call<T>(method: string, path: string, body?: object): Promise<T> {
    const headers: Record<string, string> = { accept: "application/json" };
    const bearer = token();
    if (bearer) headers.authorization = `Bearer ${bearer}`;
    if (body) headers["content-type"] = "application/json";
    const sent: RequestInit = { method, headers };
    if (body) sent.body = JSON.stringify(body);
    const answer = await fetch(base + path, sent).catch(() => {
      throw new Unavailable({ code: "store_down", message: "No answer.", retry: true });
    });
    const said = await answer.json().catch(() => ({}));
    if (!answer.ok) {
      throw fromWire({
        code: answer.status === 404 ? "not_found" : "internal",
        retry: answer.status >= 500,
        ...said,
      });
    }
    return said as T;
  }
  return {
    get: (path) => call("GET", path),
    post: (path, body) => call("POST", path, body),
  };
}
