/** `npm start`: the whole way on an embedded host, from detection to what fits. */
import { createHost } from '../../lab/host.ts';
import { planHost } from '../../lab/plan/plan-host.ts';
import { DEFAULT_HOST } from '../../survey/embedded/hosts.ts';
import { toJson } from '../format.ts';
import { readHost } from '../host-operands.ts';
import { style } from '../io.ts';
import { printNodes } from '../print-plan.ts';
import { logLine, printState } from '../print-state.ts';
import { printWrapped } from '../table.ts';
import { EXIT, type Run } from '../verb.ts';

export const run: Run = async (_operands, options, io) => {
  const survey = await readHost([DEFAULT_HOST]);
  const plan = planHost(survey, { holes: 'memblock', dynamicPamt: false });
  const { machine, kernel } = createHost(survey.machine, { hints: survey.kernel });
  if (options.json !== true) {
    printWrapped(io, style(io, 'bold', `Bringing TDX up on ${plan.host}, a real server's memory map`));
    io.out();
    kernel.log.subscribe((entry) => io.out(logLine(io, entry)));
  }
  await kernel.boot();
  if (options.json === true) {
    io.out(
      toJson({ plan, state: kernel.state, pamtKb: kernel.enabled?.pamtKb ?? 0, log: kernel.log.entries }),
    );
  } else {
    printState(io, { machine, kernel });
    printNodes(io, plan);
    io.out();
    const { count, start, end } = plan.tdx.privateKeyIds;
    printWrapped(
      io,
      `What fits: ${kernel.keyIds.capacity} TDs at once, one of the ${count} private KeyIDs [${start}, ${end}) each, ` +
        `less the one the module keeps; their memory comes from the TDX-capable memory above.`,
    );
    io.out();
    printWrapped(
      io,
      'Next: `npx tdxlab plan FILE` with the boot log of your own host, or `npx tdxlab --help`.',
    );
  }
  return kernel.state === 'initialized' ? EXIT.done : EXIT.no;
};
