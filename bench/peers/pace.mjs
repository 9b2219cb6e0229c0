// What every peer on Node does: tell the port, wait for the start, publish at the rate, end with stdin.
import { createInterface } from "node:readline";

const [rate, seconds, size] = process.argv.slice(2).map(Number);

const nowS = () => Number(process.hrtime.bigint()) / 1e9;

/** The events of one run, each at its time; `publish` gets the array of one event. */
export function pace(server, publish) {
  server.listen(0, "127.0.0.1", 4096, () => console.log(`port ${server.address().port}`));
  const lines = createInterface({ input: process.stdin });
  lines.on("line", (line) => {
    const start = Number(line.split(" ")[1]);
    const events = Math.round(rate * seconds);
    let number = 0;
    const turn = () => {
      const due = start + number / rate;
      if (nowS() >= due) {
        const text = `${number} ${due.toFixed(6)} `.padEnd(size, ".");
        number += 1;
        publish([{ ev: "notice.posted", seq: number, at: Date.now(), data: { text } }]);
      }
      if (number < events) {
        setTimeout(turn, Math.max(0, (start + number / rate - nowS()) * 1000));
      }
    };
    turn();
  });
  lines.on("close", () => process.exit(0));
}
