/** Hearts on one canvas: at most twelve at a time, and nothing runs while there are none. */

const FLYING_MAX = 12;
const FLIGHT_MS = 2600;
const COLOURS = ["#ff6b57", "#ff9a76", "#ffc2a1", "#f2545b", "#ffd9c7"];

interface Heart {
  born: number;
  x: number;
  sway: number;
  size: number;
  colour: string;
}

const still = matchMedia("(prefers-reduced-motion: reduce)");

/** Draws on `canvas`; the returned function lets `count` more hearts fly. */
export function hearts(canvas: HTMLCanvasElement): (count: number) => void {
  const pen = canvas.getContext("2d");
  let flying: Heart[] = [];
  let running = false;

  function fit(): void {
    const scale = Math.min(2, devicePixelRatio);
    canvas.width = canvas.clientWidth * scale;
    canvas.height = canvas.clientHeight * scale;
    pen?.setTransform(scale, 0, 0, scale, 0, 0);
  }

  function draw(now: number): void {
    if (!pen) return;
    const { clientWidth: width, clientHeight: height } = canvas;
    pen.clearRect(0, 0, width, height);
    flying = flying.filter((heart) => now - heart.born < FLIGHT_MS);
    for (const heart of flying) {
      const way = Math.max(0, (now - heart.born) / FLIGHT_MS);
      const x = heart.x + Math.sin(way * 7 + heart.sway) * 14 * way;
      const grown = heart.size * Math.min(1, 0.3 + way * 6);
      pen.globalAlpha = way < 0.6 ? 1 : 1 - (way - 0.6) / 0.4;
      trace(pen, x, height - 24 - way * (height - 60), grown);
      pen.fillStyle = heart.colour;
      pen.fill();
    }
    running = flying.length > 0;
    if (running) requestAnimationFrame(draw);
  }

  return (count) => {
    if (still.matches || document.hidden) return;
    const room = Math.min(count, FLYING_MAX - flying.length);
    if (room <= 0) return;
    if (!running) fit();
    for (let i = 0; i < room; i++) {
      flying.push({
        born: performance.now() + i * (60 + Math.random() * 120),
        x: canvas.clientWidth - 26 - Math.random() * 44,
        sway: Math.random() * 6,
        size: 9 + Math.random() * 6,
        colour: COLOURS[Math.floor(Math.random() * COLOURS.length)] as string,
      });
    }
    if (!running) {
      running = true;
      requestAnimationFrame(draw);
    }
  };
}

function trace(pen: CanvasRenderingContext2D, x: number, y: number, r: number): void {
  pen.beginPath();
  pen.moveTo(x, y + r);
  pen.bezierCurveTo(x - r * 1.6, y - r * 0.1, x - r * 0.9, y - r * 1.3, x, y - r * 0.4);
  pen.bezierCurveTo(x + r * 0.9, y - r * 1.3, x + r * 1.6, y - r * 0.1, x, y + r);
}
