/** The icons: one stroke, drawn on a 24 grid. */
import type { ComponentChildren } from "preact";

function Mark({ children, fill = "none" }: { children: ComponentChildren; fill?: string }) {
  return (
    <svg
      width="22"
      height="22"
      viewBox="0 0 24 24"
      fill={fill}
      stroke="currentColor"
      stroke-width="1.9"
      stroke-linecap="round"
      stroke-linejoin="round"
      aria-hidden="true"
    >
      {children}
    </svg>
  );
}

export const BagMark = () => (
  <Mark>
    <path d="M5.5 8h13l-1 11a2 2 0 0 1-2 1.8h-7a2 2 0 0 1-2-1.8z" />
    <path d="M8.8 10.5V7a3.2 3.2 0 0 1 6.4 0v3.5" />
  </Mark>
);

export const HeartMark = () => (
  <Mark fill="currentColor">
    <path d="M12 20s-7.5-4.6-7.5-10A4.2 4.2 0 0 1 12 7.4 4.2 4.2 0 0 1 19.5 10c0 5.4-7.5 10-7.5 10z" />
  </Mark>
);

export const CloseMark = () => (
  <Mark>
    <path d="M6 6l12 12M18 6L6 18" />
  </Mark>
);

export const PaidMark = () => (
  <Mark>
    <path d="M5 12.5l4.5 4.5L19 7.5" />
  </Mark>
);

export const SendMark = () => (
  <Mark>
    <path d="M4.5 12L20 4.5 15 20l-3.5-6.5z" />
  </Mark>
);

export const EyeMark = () => (
  <Mark>
    <path d="M2.5 12S6 5.8 12 5.8 21.5 12 21.5 12 18 18.2 12 18.2 2.5 12 2.5 12z" />
    <circle cx="12" cy="12" r="2.6" />
  </Mark>
);

export const PinMark = () => (
  <Mark>
    <path d="M12 15v6M8 4h8l-1 6 3 5H6l3-5z" />
  </Mark>
);
