/** One chart that follows the width of the page and the colours of its theme. */
import { useEffect, useRef } from "preact/hooks";
import uPlot, { type AlignedData, type Options, type Series } from "uplot";
import "uplot/dist/uPlot.min.css";

const HEIGHT = 240;

export interface Line {
  label: string;
  /** The custom property that holds its colour. */
  colour: string;
}

interface Props {
  title: string;
  data: AlignedData;
  lines: Line[];
  /** What stands along the bottom, and where it is marked if not wherever there is room. */
  label: string;
  marks?: number[];
  /** What the values along the bottom, and those at the side, are told as. */
  across?: (value: number) => string;
  up?: (value: number) => string;
}

function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function optionsOf({ lines, label, marks, across, up }: Props, width: number): Options {
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 } };
  const series: Series[] = lines.map((line) => ({
    label: line.label,
    stroke: colour(line.colour),
    width: 2,
    points: { show: false },
    ...(up && { value: (_: uPlot, value: number | null) => (value === null ? "–" : up(value)) }),
  }));
  const first: Series = {
    label,
    ...(across && {
      value: (_: uPlot, value: number | null) => (value === null ? "–" : across(value)),
    }),
  };
  return {
    width,
    height: HEIGHT,
    scales: { x: { time: false }, y: { range: (_, _least, most) => [0, most * 1.1] } },
    series: [first, ...series],
    axes: [
      {
        ...axis,
        ...(marks && { splits: marks }),
        ...(across && { values: (_: uPlot, at: number[]) => at.map(across) }),
      },
      { ...axis, size: 72, ...(up && { values: (_: uPlot, at: number[]) => at.map(up) }) },
    ],
  };
}

export function Chart(props: Props) {
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const here = place.current;
    if (!here) return;
    const plot = new uPlot(optionsOf(props, here.clientWidth), props.data, here);
    const watch = new ResizeObserver(() =>
      plot.setSize({ width: here.clientWidth, height: HEIGHT }),
    );
    watch.observe(here);
    return () => {
      watch.disconnect();
      plot.destroy();
    };
  }, [props]);
  return (
    <figure class="chart">
      <figcaption>{props.title}</figcaption>
      <div ref={place} />
    </figure>
  );
}
