/** `tdxlab up HOST`: brings the simulated host up through every SEAMCALL. */
import { KernelError } from '../../abi/errno.ts';
import type { HostKernel } from '../../kernel/host-kernel.ts';
import { describeFailurePoint, describeMiss, parseFailurePoint } from '../../lab/fail-at.ts';
import { createHost, type Host } from '../../lab/host.ts';
import { SeamcallTracer } from '../../lab/trace.ts';
import { toJson } from '../format.ts';
import { hostOptions, kernelPolicy, readHost } from '../host-operands.ts';
import { LineFile } from '../line-file.ts';
import { printNotes } from '../print-plan.ts';
import { logLine, printState } from '../print-state.ts';
import { writeSavedHost } from '../saved-host.ts';
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
    await actAsFirstUser(host.kernel);
    trace?.finish();
  } catch (error) {
    trace?.discard();
    throw error;
  }
  if (json) io.out(toJson({ ...stateOf(host), notes: survey.notes }));
  else {
    printState(io, host);
    printNotes(io, survey.notes);
  }
  if (options.save !== undefined) writeSavedHost(String(options.save), host, io);
  const { failure } = host;
  if (failAt !== undefined && failure?.reached === false) {
    io.err(`tdxlab: --fail-at: ${describeMiss(failAt, failure)}`);
    return EXIT.usage;
  }
  return host.kernel.state === 'initialized' ? EXIT.done : EXIT.no;
};

/** Under `first-user` nothing happens until somebody wants TDX; here that is the one who asked for the bring-up. */
async function actAsFirstUser(kernel: HostKernel): Promise<void> {
  if (kernel.policy.enable !== 'first-user') return;
  try {
    await kernel.getTdx();
  } catch (error) {
    // A refusal is in the stages and in the log.
    if (!(error instanceof KernelError)) throw error;
  }
}

function stateOf({ machine, kernel }: Host): object {
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
