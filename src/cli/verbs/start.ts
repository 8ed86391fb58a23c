/** `npm start`: the whole way on an embedded host, from detection to a TD that runs. */
import { createHost } from '../../lab/host.ts';
import { startKvm } from '../../lab/kvm-host.ts';
import type { Plan } from '../../lab/plan/plan.ts';
import { planHost } from '../../lab/plan/plan-host.ts';
import { runVmExample, type VmEvent } from '../../lab/vm/vm-example.ts';
import { DEFAULT_HOST } from '../../survey/embedded/hosts.ts';
import { toJson } from '../format.ts';
import { readHost } from '../host-operands.ts';
import { type Io, style } from '../io.ts';
import { printEvent } from '../print-example.ts';
import { printNodes } from '../print-plan.ts';
import { logLine, printState } from '../print-state.ts';
import { printWrapped } from '../table.ts';
import { EXIT, type Run } from '../verb.ts';

export const run: Run = async (_operands, options, io) => {
  const survey = await readHost([DEFAULT_HOST]);
  const plan = planHost(survey, { holes: 'memblock', dynamicPamt: false });
  const host = createHost(survey.machine, { hints: survey.kernel });
  const { kernel } = host;
  const json = options.json === true;
  if (!json) {
    printWrapped(io, style(io, 'bold', `Bringing TDX up on ${plan.host}, a real server's memory map`));
    io.out();
    kernel.log.subscribe((entry) => io.out(logLine(io, entry)));
  }
  await kernel.boot();
  if (!json) {
    printState(io, host);
    printNodes(io, plan);
    printCapacity(io, plan, kernel.keyIds.capacity);
    printWrapped(io, style(io, 'bold', 'Building, measuring and running a TD on it, through KVM'));
  }
  const watch = (event: VmEvent): void => {
    if (!json && !event.isDetail) printEvent(io, event);
  };
  const td = await runVmExample({ ...host, ...(await startKvm(host)) }, 'tdx', watch);
  if (json) {
    const { measurement, console, ok } = td;
    const pamtKb = kernel.enabled?.pamtKb ?? 0;
    const { state, log } = kernel;
    io.out(toJson({ plan, state, pamtKb, log: log.entries, td: { measurement, console, ok } }));
  } else {
    io.out();
    const next = '`npx tdxlab plan FILE` with the boot log of your own host, `npx tdxlab vm` for other';
    printWrapped(io, `Next: ${next} kinds of VM, or \`npx tdxlab --help\`.`);
  }
  return td.ok ? EXIT.done : EXIT.no;
};

function printCapacity(io: Io, { tdx }: Plan, capacity: number): void {
  const { count, start, end } = tdx.privateKeyIds;
  io.out();
  printWrapped(
    io,
    `What fits: ${capacity} TDs at once, one of the ${count} private KeyIDs [${start}, ${end}) each, ` +
      `less the one the module keeps; their memory comes from the TDX-capable memory above.`,
  );
  io.out();
}
