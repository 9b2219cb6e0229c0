/** The report of one bench run, in a file of its own: what held, what it cost, how it went. */
import { render } from "preact";
import "../look/base.css";
import "./report.css";
import { Chart } from "./chart.tsx";
import { named, nines, type Run, readRun, told } from "./run.ts";

const MARKS = [0, 50, 90, 99, 99.9, 99.99, 99.999].map(nines);

const ms = (value: number) => `${told(value)} ms`;
const second = (value: number) => `${value} s`;
const percent = (at: number) => `${told(100 * (1 - 10 ** -at))} %`;

function Values({ title, values }: { title: string; values: Record<string, unknown> }) {
  return (
    <section>
      <h2>{title}</h2>
      <table>
        <tbody>
          {Object.entries(values).map(([name, value]) => (
            <tr key={name}>
              <th scope="row">{named(name)}</th>
              <td class="num">{told(value)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function Faults({ faults }: { faults: Run["faults"] }) {
  return (
    <section>
      <h2>Faults</h2>
      <table>
        <tbody>
          {Object.entries(faults).map(([name, count]) => (
            <tr key={name} class={count ? "fault" : ""}>
              <th scope="row">{named(name)}</th>
              <td class="num">{told(count)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function OverTime({ seconds }: { seconds: Run["seconds"] }) {
  const at = seconds.map(([one]) => one);
  return (
    <>
      <Chart
        title="Latency over time, by the second of arrival"
        data={[at, seconds.map(([, , p50]) => p50), seconds.map(([, , , p99]) => p99)]}
        lines={[
          { label: "p50", colour: "--paid" },
          { label: "p99", colour: "--accent" },
        ]}
        label="at"
        across={second}
        up={ms}
      />
      <Chart
        title="Throughput over time, a second"
        data={[at, seconds.map(([, count]) => count)]}
        lines={[{ label: "arrived", colour: "--paid" }]}
        label="at"
        across={second}
        up={told}
      />
    </>
  );
}

function Report({ run }: { run: Run }) {
  const inside = run.curve.filter(([at]) => at < 100);
  return (
    <main>
      <header>
        <h1>{named(run.scenario)}</h1>
        <p class={run.correct ? "verdict" : "verdict fault"}>
          {run.correct ? "nothing lost" : "faults"}
        </p>
        <p>
          <code>{run.command}</code>
        </p>
        <p class="soft">{run.machine}</p>
        {run.notes.map((note) => (
          <p key={note}>{note}</p>
        ))}
      </header>
      {inside.length > 1 && (
        <Chart
          title="Latency by percentile"
          data={[inside.map(([at]) => nines(at)), inside.map(([, value]) => value)]}
          lines={[{ label: "latency", colour: "--accent" }]}
          label="of all"
          marks={MARKS}
          across={percent}
          up={ms}
        />
      )}
      {run.seconds.length > 1 && <OverTime seconds={run.seconds} />}
      <div class="tables">
        <Values title="Figures" values={run.figures} />
        <div>
          <Faults faults={run.faults} />
          <Values title="Parameters" values={run.parameters} />
        </div>
      </div>
    </main>
  );
}

const app = document.getElementById("app");
const held = document.getElementById("run")?.textContent;
if (app && held) render(<Report run={readRun(held)} />, app);
