import { describe, expect, it } from 'vitest';
import { TDG } from '../../../src/abi/leaves.ts';
import { GuestException } from '../../../src/lab/guest/flow.ts';
import type { GuestProgram } from '../../../src/lab/guest/program.ts';
import { GUEST_PROGRAMS } from '../../../src/lab/guest/programs.ts';
import { createHost, type Host } from '../../../src/lab/host.ts';
import { type ProgramRun, runProgram } from '../../../src/lab/td/run-program.ts';
import { EMBEDDED_HOSTS } from '../../../src/survey/embedded/hosts.ts';

async function host(): Promise<Host> {
  const made = createHost(EMBEDDED_HOSTS.get('spr-256g-2node')!.machine, { module: '1.5.25' });
  await made.kernel.boot();
  return made;
}

async function play(program: GuestProgram): Promise<{ run: ProgramRun; lines: string[]; host: Host }> {
  const on = await host();
  const lines: string[] = [];
  const run = runProgram(on, program, ({ who, text }) => lines.push(`${who}: ${text}`));
  return { run, lines, host: on };
}

function program(run: GuestProgram['run'], more: Partial<GuestProgram> = {}): GuestProgram {
  return { name: 'test', summary: 'a test', run, ...more };
}

describe('a scripted TD', () => {
  it('lets two vCPUs share private memory and leaves nothing behind', async () => {
    const { run, lines, host: on } = await play(GUEST_PROGRAMS.get('counter')!);
    expect(run.finished).toBe(true);
    expect(lines.filter((line) => line.includes('counted to')).map((line) => line.at(-1))).toEqual([
      '1',
      '2',
      '3',
      '4',
      '5',
      '6',
    ]);
    expect(on.kernel.keyIds.current).toBe(0);
    on.kernel.allocator.audit();
    const fresh = await host();
    expect(on.kernel.allocator.accounts()).toEqual(fresh.kernel.allocator.accounts());
  });

  it('reads what the host measured into it, which the host cannot read any more', async () => {
    let seen = '';
    const { run } = await play(
      program(
        function* (cpu) {
          seen = new TextDecoder().decode(yield* cpu.read(0x5000, 6));
        },
        { pages: [{ gpa: 0x5000, contents: new TextEncoder().encode('secret') }] },
      ),
    );
    expect(run.finished).toBe(true);
    expect(seen).toBe('secret');
  });

  it('takes a #VE for HLT as an exception at that instruction', async () => {
    const vectors: number[] = [];
    const { run } = await play(
      program(function* (cpu) {
        try {
          yield* cpu.hlt();
        } catch (exception) {
          if (!(exception instanceof GuestException)) throw exception;
          vectors.push(exception.vector);
        }
        yield* cpu.tdcall(TDG.vpInfo);
      }),
    );
    expect(vectors).toEqual([20]);
    expect(run.finished).toBe(true);
  });

  it('gets pages on demand, and is stopped when it uses one it has not accepted', async () => {
    const { run, lines } = await play(
      program(function* (cpu) {
        yield* cpu.write(0x40_0000, Uint8Array.of(1));
      }),
    );
    expect(run.finished).toBe(false);
    expect(lines.at(-2)).toBe('vCPU 0: EPT violation: write of GPA 0x400000, PENDING');
    expect(lines.at(-1)).toMatch(/^host: TD destroyed/);
  });

  it('talks to the host with TDVMCALL', async () => {
    const answers: bigint[] = [];
    const { lines } = await play(
      program(function* (cpu) {
        const out = yield* cpu.vmcall(0x10000n);
        answers.push(out[10]!);
      }),
    );
    expect(lines).toContain('vCPU 0: TDVMCALL GET_TD_VM_CALL_INFO R12 0x0 R13 0x0 R14 0x0');
    expect(answers).toEqual([0n]);
  });
});
