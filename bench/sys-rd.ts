/** Rates of SYS.RD, bare and through the kernel's wrapper, and reading all fields one by one against SYS.RDALL. */
import { TDH } from '../src/abi/leaves.ts';
import { R8, RAX, RDX } from '../src/abi/registers.ts';
import { seamcall, setOperands } from '../src/kernel/seamcall.ts';
import { createHost } from '../src/lab/host.ts';
import { server } from './server.ts';

const CALLS = 2_000_000;
const TDX_FEATURES0 = 0x0a00_0003_0000_0008n;
const FIRST_FIELD = 0xffff_ffff_ffff_ffffn;

const { kernel } = createHost(server(1, 1));
await kernel.boot();
const cpu = kernel.cpus[0]!;
const { lp } = cpu;
const { q } = lp.regs;

/** Calls per second of `work`, which makes `calls` of them; best of five. */
function rate(calls: number, work: () => void): number {
  let best = 0;
  for (let i = 0; i < 5; i++) {
    const begin = performance.now();
    work();
    best = Math.max(best, (calls * 1000) / (performance.now() - begin));
  }
  return best;
}

const raw = rate(CALLS, () => {
  for (let i = 0; i < CALLS; i++) {
    q[RAX] = BigInt(TDH.sysRd);
    q[RDX] = TDX_FEATURES0;
    lp.seamcall();
  }
});
const wrapped = rate(CALLS, () => {
  for (let i = 0; i < CALLS; i++) {
    setOperands(cpu);
    q[RDX] = TDX_FEATURES0;
    if (seamcall(cpu, TDH.sysRd) !== 0n) throw new Error('SYS.RD failed');
  }
});

/** Every field from the first on, by following the next-field output. */
function readAllOneByOne(): number {
  let fields = 0;
  for (let id = FIRST_FIELD; ; id = q[RDX]!, fields++) {
    setOperands(cpu);
    q[RDX] = id;
    seamcall(cpu, TDH.sysRd);
    if (q[RDX] === FIRST_FIELD) return fields;
  }
}

function readAllAtOnce(): void {
  setOperands(cpu);
  q[RDX] = 0x10_0000n;
  q[R8] = FIRST_FIELD;
  if (seamcall(cpu, TDH.sysRdall) !== 0n) throw new Error('SYS.RDALL failed');
}

const ROUNDS = 2000;
const perFieldUs = 1e6 / rate(ROUNDS, () => Array.from({ length: ROUNDS }, readAllOneByOne));
const rdallUs = 1e6 / rate(ROUNDS, () => Array.from({ length: ROUNDS }, readAllAtOnce));
console.log(JSON.stringify({ raw, wrapped, perFieldUs, rdallUs }));
