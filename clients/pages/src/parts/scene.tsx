/** The drawn studio, in the palette of the day or of the night. */
import { useId } from "preact/hooks";

export function Scene() {
  const id = useId(); // Several scenes may stand on one page.
  const url = (part: string) => `url(#${part}${id})`;
  return (
    <svg
      class="scene"
      viewBox="0 44 390 844"
      preserveAspectRatio="xMidYMid slice"
      aria-hidden="true"
    >
      <defs>
        <linearGradient id={`sky${id}`} x2="0" y2="1">
          <stop stop-color="var(--sky-a)" />
          <stop offset="1" stop-color="var(--sky-b)" />
        </linearGradient>
        <linearGradient id={`floor${id}`} x2="0" y2="1">
          <stop stop-color="var(--floor-a)" />
          <stop offset="1" stop-color="var(--floor-b)" />
        </linearGradient>
        <linearGradient id={`plinth${id}`} x2="1" y2="0">
          <stop stop-color="var(--plinth-a)" />
          <stop offset="1" stop-color="var(--plinth-b)" />
        </linearGradient>
        <radialGradient id={`light${id}`}>
          <stop stop-color="var(--lamp)" />
          <stop offset="1" stop-color="var(--lamp)" stop-opacity="0" />
        </radialGradient>
        <clipPath id={`arch${id}`}>
          <path d="M78 520V262a117 117 0 0 1 234 0v258z" />
        </clipPath>
      </defs>
      <g clip-path={url("arch")}>
        <rect x="60" y="120" width="270" height="420" fill={url("sky")} />
        <circle class="sun" cx="140" cy="222" r="40" fill="var(--sun)" />
        <path d="M60 452q60-54 130-30t150-34v160H60z" fill="var(--hill-a)" />
        <path d="M60 492q80-40 150-14t130-22v100H60z" fill="var(--hill-b)" />
      </g>
      <path
        d="M72 520V262a123 123 0 0 1 246 0v258"
        fill="none"
        stroke="var(--plinth-a)"
        stroke-width="10"
        opacity=".55"
      />
      <path d="M-120 512h630v420h-630z" fill={url("floor")} />
      <ellipse cx="195" cy="540" rx="190" ry="34" fill="var(--plinth-a)" opacity=".16" />
      <g>
        <path d="M-30 300h70" stroke="var(--wood)" stroke-width="5" stroke-linecap="round" />
        <path d="M34 300v236" stroke="var(--wood)" stroke-width="5" stroke-linecap="round" />
        <g class="cloth">
          <path d="M-14 302l14 10h10l6-10 8 14-4 96q-20 8-42 0l-2-98z" fill="var(--cloth-b)" />
        </g>
        <g class="cloth">
          <path d="M-46 302l12 10h8l6-10 10 12-6 118q-18 6-38 0z" fill="var(--cloth-c)" />
        </g>
      </g>
      <g class="lamp">
        <path d="M318 -20v150" stroke="var(--wood)" stroke-width="3" />
        <path d="M286 158a32 32 0 0 1 64 0z" fill="var(--cloth-b)" />
        <circle cx="318" cy="160" r="9" fill="var(--lamp)" />
      </g>
      <circle class="glow" cx="318" cy="176" r="112" fill={url("light")} />
      <g>
        <path class="leaf" d="M352 500q-34-30-30-92 36 26 34 92z" fill="var(--leaf-a)" />
        <path class="leaf" d="M356 500q-4-62 30-100 20 56-22 102z" fill="var(--leaf-b)" />
        <path class="leaf" d="M350 502q-46-10-62-54 50 2 68 52z" fill="var(--leaf-b)" />
        <path class="leaf" d="M360 502q16-44 60-52-8 48-54 56z" fill="var(--leaf-a)" />
        <path d="M330 498h54l-7 52a8 8 0 0 1-8 7h-24a8 8 0 0 1-8-7z" fill="var(--pot)" />
        <rect x="326" y="494" width="62" height="12" rx="5" fill="var(--wood)" />
      </g>
      <path d="M122 412h146v112q-73 26-146 0z" fill={url("plinth")} />
      <ellipse cx="195" cy="412" rx="73" ry="17" fill="var(--plinth-a)" />
      <g fill="var(--lamp)">
        <circle class="mote" cx="110" cy="470" r="2.4" />
        <circle class="mote" cx="250" cy="450" r="1.8" />
        <circle class="mote" cx="170" cy="500" r="2" />
        <circle class="mote" cx="290" cy="480" r="2.6" />
        <circle class="mote" cx="70" cy="440" r="1.8" />
      </g>
    </svg>
  );
}
