import { describe, expect, it } from 'vitest';
import { KernelError } from '../../../src/abi/errno.ts';
import { UserFault } from '../../../src/kernel/process/system-calls.ts';
import type { BackendName } from '../../../src/kvm/backend.ts';
import { genoaMachine } from '../../../src/lab/machines/genoa.ts';
import { accountOf } from '../../../src/lab/vm/account.ts';
import { EXAMPLE_TEXTS } from '../../../src/lab/vm/example-guest.ts';
import { runVmExample, type VmEvent } from '../../../src/lab/vm/vm-example.ts';
import { startVmHost, VM_BACKENDS, type VmHost } from '../../../src/lab/vm/vm-host.ts';
import { TINY } from '../../kernel/tiny-machine.ts';

const SECRET = `"${EXAMPLE_TEXTS.secret}"`;

function hostFor(backend: BackendName): Promise<VmHost> {
  return startVmHost(backend, backend === 'snp' ? genoaMachine() : TINY, {
    hints: { hibernationDisabled: true },
  });
}

/** What the host gets of the secret: by its mapping, by the file, from the memory itself, and what a store does. */
const SEEN: Readonly<Record<BackendName, readonly RegExp[]>> = {
  plain: [new RegExp(SECRET), new RegExp(SECRET)],
  'sw-protected': [/^zeroes$/, /^ENODEV/, new RegExp(SECRET)],
  tdx: [/^zeroes$/, /^ENODEV/, /^zeroes$/],
  snp: [/^zeroes$/, /^ENODEV/, /^noise/, /^#PF: RMP/],
  pkvm: [/^SIGBUS/, /^#PF/, /^#PF/],
};

const MEASURED: Readonly<Record<BackendName, string | undefined>> = {
  plain: undefined,
  'sw-protected': undefined,
  tdx: 'MRTD',
  snp: 'launch digest',
  pkvm: undefined,
};

describe.each(VM_BACKENDS)('the example VM of %s', (backend) => {
  it('keeps its secret as far as the technology keeps it, shares a page, and gives everything back', async () => {
    const host = await hostFor(backend);
    const example = await runVmExample(host, backend, () => undefined);
    expect(example.ok).toBe(true);
    expect(example.end.kind).toBe('power-off');
    expect(example.looks.secret.map(({ result }) => result)).toEqual(
      SEEN[backend].map((pattern) => expect.stringMatching(pattern)),
    );
    expect(example.looks.shared?.result).toBe(`"${EXAMPLE_TEXTS.greeting}"`);
    expect(example.looks.again?.result === `"${EXAMPLE_TEXTS.again}"`).toBe(backend === 'plain');
    expect(example.console).toContain('the secret is still there');
    expect(example.console).toContain(`the host answers "${EXAMPLE_TEXTS.answer}"`);
    expect(example.after).toEqual(example.before);
    expect(example.measurement?.name).toBe(MEASURED[backend]);
    expect(example.measurement?.measured).toBe(example.measurement?.predicted);
  });

  it('runs with several vCPUs, again and again on one host, the same each time', async () => {
    const host = await hostFor(backend);
    const runs = [];
    for (let i = 0; i < 3; i++) runs.push(await runVmExample(host, backend, () => undefined, { vcpus: 3 }));
    for (const { console, ok, before } of runs) {
      expect(ok).toBe(true);
      expect(console).toEqual(runs[0]!.console);
      expect(before).toEqual(runs[0]!.before);
    }
    expect(runs[0]!.console.filter((line) => line.endsWith('is up'))).toEqual([
      'vCPU 2 of 3 is up',
      'vCPU 1 of 3 is up',
    ]);
  });

  it('tells every system call when asked, repeated ones once', async () => {
    const host = await hostFor(backend);
    const events: VmEvent[] = [];
    await runVmExample(host, backend, (event) => events.push(event), { trace: true });
    const calls = events.filter(({ who }) => who === 'call').map(({ text }) => text);
    expect(calls[0]).toBe('open("/dev/kvm", O_RDWR|O_CLOEXEC) = 3');
    expect(calls.at(-1)).toBe('close(3</dev/kvm>) = 0');
    expect(calls).toContainEqual(
      expect.stringMatching(/KVM_RUN\) = 0 KVM_EXIT_IO \{out, port=0x3f8, size=1\}$/),
    );
    expect(calls).toContainEqual(expect.stringMatching(/^\(the same \d+ more times\)$/));
    expect(calls.some((call, i) => call === calls[i + 1])).toBe(false);
  });
});

describe.each(VM_BACKENDS)('memory that runs out in the life of a VM of %s', (backend) => {
  it('ends it at whatever allocation, and leaves nothing behind', async () => {
    const host = await hostFor(backend);
    const { allocator } = host.kernel;
    let allocations = 0;
    allocator.fault = () => {
      allocations++;
      return false;
    };
    expect((await runVmExample(host, backend, () => undefined)).ok).toBe(true);
    const before = accountOf(host);
    const outcomes = new Set<string>();
    for (let nth = 1; nth <= allocations; nth++) {
      let count = 0;
      allocator.fault = () => ++count === nth;
      outcomes.add(await outcome(host, backend));
      expect({ nth, ...accountOf(host) }).toEqual({ nth, ...before });
    }
    expect(allocations).toBeGreaterThan(4);
    expect([...outcomes].filter((name) => !ENDS_WITHOUT_MEMORY.has(name))).toEqual([]);
  });
});

/** What an allocation that fails comes to: a call is refused, or KVM_RUN, or user code's own store gets a signal. */
const ENDS_WITHOUT_MEMORY = new Set([
  'ENOMEM',
  'EFAULT',
  'EIO',
  'ENOTTY',
  'memory-fault',
  'SIGBUS',
  'power-off',
]);

async function outcome(host: VmHost, backend: BackendName): Promise<string> {
  try {
    return (await runVmExample(host, backend, () => undefined)).end.kind;
  } catch (error) {
    if (error instanceof KernelError) return error.errno;
    if (error instanceof UserFault) return error.signal;
    throw error;
  }
}

describe('hosts without the technology', () => {
  it.each([
    ['snp', TINY, /no VMs of type 4/],
    ['tdx', { ...TINY, keyIds: null, seamrr: null, module: null, cmrs: [] }, /no VMs of type 5/],
  ] as const)('say so in one sentence: %s', async (backend, machine, sentence) => {
    const host = await startVmHost(backend, machine);
    const { all } = host.kernel.openObjects;
    const failed = runVmExample(host, backend, () => undefined);
    await expect(failed).rejects.toThrow(KernelError);
    await expect(failed).rejects.toThrow(sentence);
    expect(host.kernel.openObjects.all).toEqual(all);
  });
});
