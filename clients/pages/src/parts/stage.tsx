/** The stage: the stream where there is one, else a drawn studio with what is on air in it. */
import type { Product, Stream } from "@liveroom/client";
import { useEffect, useRef } from "preact/hooks";
import "../look/stage.css";
import { Picture } from "./picture.tsx";
import { Scene } from "./scene.tsx";

/** Frames that play what is no plain video. The address is the host's; it must be https. */
function frameOf({ kind, url }: Stream): string | null {
  const address = URL.canParse(url) ? new URL(url) : null;
  if (address?.protocol !== "https:") return null;
  if (kind === "owncast") return `${address.origin}/embed/video`;
  if (kind === "twitch") {
    const channel = address.pathname.split("/").filter(Boolean).at(0) ?? "";
    const query = new URLSearchParams({ channel, parent: location.hostname, muted: "true" });
    return `https://player.twitch.tv/?${query}`;
  }
  if (kind === "youtube") {
    const video = address.searchParams.get("v") ?? address.pathname.split("/").at(-1) ?? "";
    return `https://www.youtube-nocookie.com/embed/${encodeURIComponent(video)}?autoplay=1&mute=1&playsinline=1`;
  }
  return null;
}

/** HLS: natively where the browser can, else by hls.js, which is fetched only then. */
function Hls({ url }: { url: string }) {
  const video = useRef<HTMLVideoElement>(null);
  useEffect(() => {
    const screen = video.current;
    if (!screen) return;
    if (screen.canPlayType("application/vnd.apple.mpegurl")) {
      screen.src = url;
      return;
    }
    let end = () => {};
    let gone = false;
    import("hls.js/light").then(({ default: Player }) => {
      if (gone || !Player.isSupported()) return;
      const player = new Player({ lowLatencyMode: true, backBufferLength: 10 });
      end = () => player.destroy();
      player.loadSource(url);
      player.attachMedia(screen);
    });
    return () => {
      gone = true;
      end();
    };
  }, [url]);
  return <video ref={video} autoplay muted playsInline />;
}

/** `onAir` is the newest pin: it stands in the light while there is no stream. */
export function Stage({
  stream,
  onAir,
}: {
  stream?: Stream | undefined;
  onAir?: Product | undefined;
}) {
  const frame = stream && frameOf(stream);
  return (
    <div class="stage">
      {stream?.kind === "hls" ? (
        <Hls url={stream.url} />
      ) : frame ? (
        <iframe src={frame} title={stream.kind} allow="autoplay; encrypted-media" />
      ) : (
        <>
          <Scene />
          {onAir && (
            <div class="onair" key={onAir.id}>
              <Picture product={onAir} />
            </div>
          )}
        </>
      )}
    </div>
  );
}
