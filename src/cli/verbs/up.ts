/** `tdxlab up HOST`: brings the simulated host up through every SEAMCALL. */
import { formatRange } from '../../abi/address.ts';
import { formatLogEntry, type LogEntry } from '../../kernel/log.ts';
import { pamtBytes, pamtRange } from '../../kernel/pamt-alloc.ts';
import { describeFailurePoint, parseFailurePoint } from '../../lab/fail-at.ts';
import { createHost, type Host } from '../../lab/host.ts';
import { SeamcallTracer } from '../../lab/trace.ts';
import { formatBytes, formatCount, toJson } from '../format.ts';
import { hostOptions, kernelPolicy, readHost } from '../host-operands.ts';
import { type Io, style } from '../io.ts';
import { LineFile } from '../line-file.ts';
import { printTable, printWrapped } from '../table.ts';
import { EXIT, type Run } from '../verb.ts';

export const run: Run = async (sources, options, io) => {
  const choices = hostOptions(options);
  const policy = kernelPolicy(options, choices);
  const failAt = options.failAt === undefined ? undefined : parseFailurePoint(String(options.failAt));
  const survey = await readHost(sources);
  const json = options.json === true;
  const host = createHost(survey.machine, { module: choices.module, policy, hints: survey.kernel, failAt });
  const trace = options.trace === undefined ? null : new LineFile(String(options.trace));
  if (trace !== null) host.machine.seam.observer = new SeamcallTracer((line) => trace.write(line));
  if (failAt !== undefined && !json) io.err(`failing on purpose: ${describeFailurePoint(failAt)}`);
  if (!json) host.kernel.log.subscribe((entry) => io.out(logLine(io, entry)));
  try {
    await host.kernel.boot();
    trace?.finish();
  } catch (error) {
    trace?.discard();
    throw error;
  }
  if (json) io.out(toJson(stateOf(host)));
  else printState(io, host);
  return host.kernel.state === 'initialized' ? EXIT.done : EXIT.no;
};

/** A log line, coloured by its level. @internal */
export function logLine(io: Io, entry: LogEntry): string {
  const line = formatLogEntry(entry);
  if (entry.level === 'err') return style(io, 'red', line);
  return entry.level === 'warn' ? style(io, 'yellow', line) : line;
}

function stateOf({ machine, kernel }: Host): unknown {
  return {
    state: kernel.state,
    stages: kernel.stages,
    module: kernel.sysinfo?.version ?? null,
    keyIds: kernel.detection?.keyIds ?? null,
    cmrs: kernel.sysinfo?.cmrs ?? [],
    tdmrs: kernel.tdmrs.map((tdmr) => ({
      ...tdmr,
      reservedAreas: tdmr.reservedAreas.length,
      reserved: tdmr.reservedAreas,
    })),
    pamtKb: kernel.enabled?.pamtKb ?? 0,
    memory: kernel.allocator.accounts(),
    seamcalls: machine.seam.calls,
    virtualNs: machine.clock.nowNs,
    log: kernel.log.entries,
  };
}

/** How a bring-up ended: stages, what was made, what it cost. @internal */
export function printState(io: Io, { machine, kernel }: Host): void {
  const failed = kernel.stages.find((stage) => stage.state === 'failed');
  io.out();
  printTable(
    io,
    [{ heading: 'stage' }, { heading: 'state' }, { heading: 'what' }],
    kernel.stages.map(({ name, state, title, errno, reason }) => [
      name,
      state,
      reason === undefined ? title : `${errno}: ${reason.text}`,
    ]),
  );
  io.out();
  const calls = `${formatCount(machine.seam.calls)} SEAMCALLs, ${(machine.clock.nowNs / 1e9).toFixed(3)} s of virtual time`;
  if (failed !== undefined) {
    printWrapped(io, `${style(io, 'red', 'TDX is off')}: ${failed.name} failed. ${calls}.`);
    return;
  }
  if (kernel.state !== 'initialized') {
    printWrapped(
      io,
      `TDX is not initialised yet: the policy is to enable it at '${kernel.policy.enable}'. ${calls}.`,
    );
    return;
  }
  printWrapped(io, `${style(io, 'green', 'TDX is up')}: ${calls}.`);
  io.out();
  printTable(
    io,
    [
      { heading: 'TDMR' },
      { heading: 'reserved', align: 'right' },
      { heading: 'PAMT', align: 'right' },
      { heading: 'node', align: 'right' },
      { heading: 'PAMT at' },
    ],
    kernel.tdmrs.map((tdmr) => [
      formatRange(tdmr),
      String(tdmr.reservedAreas.length),
      formatBytes(pamtBytes(tdmr.pamt)),
      String(tdmr.pamt.node),
      formatRange(pamtRange(tdmr.pamt)),
    ]),
  );
}
