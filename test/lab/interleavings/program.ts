/** Programs that race: what each vCPU of a guest does, and what user space does meanwhile. */
import fc from 'fast-check';
import type { Kind } from './ledger.ts';

/** One step of a guest. Pages count from the start of the slot. */
export type GuestStep =
  | { readonly do: 'write' | 'read'; readonly page: number; readonly kind: Kind }
  | { readonly do: 'convert'; readonly page: number; readonly pages: number; readonly toPrivate: boolean }
  | { readonly do: 'rest' };

/** One step of a thread of user space. */
export type HostStep =
  | { readonly do: 'load' | 'store' | 'dma' | 'dontneed' | 'poke'; readonly page: number }
  | { readonly do: 'convert'; readonly page: number; readonly pages: number; readonly toPrivate: boolean }
  | { readonly do: 'punch' | 'allocate'; readonly page: number; readonly pages: number }
  | { readonly do: 'prefault'; readonly vcpu: number; readonly page: number; readonly pages: number }
  | { readonly do: 'slot' | 'remap' | 'close' }
  | { readonly do: 'signal'; readonly vcpu: number }
  | { readonly do: 'move'; readonly vcpu: number; readonly cpu: number }
  | { readonly do: 'hotplug'; readonly cpu: number };

export interface Program {
  /** Steps of each vCPU. */
  readonly guests: readonly (readonly GuestStep[])[];
  /** Steps of each other thread. */
  readonly hosts: readonly (readonly HostStep[])[];
  /** Actions of a guest after which an interrupt of the host arrives. */
  readonly budget: number;
  /** A conversion gives the memory of the other kind back. */
  readonly discards: boolean;
}

/** Pages that programs use by these numbers: the first few of the slot. */
const PAGES = 5;

const page = fc.nat(PAGES - 1);
const pages = fc.integer({ min: 1, max: 3 });
const kind = fc.constantFrom<Kind>('private', 'shared');
const vcpu = fc.nat(1);
const cpu = fc.nat(3);

const guestStep: fc.Arbitrary<GuestStep> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant('write' as const), page, kind }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('read' as const), page, kind }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant('convert' as const), page, pages, toPrivate: fc.boolean() }),
  },
  { weight: 1, arbitrary: fc.constant({ do: 'rest' as const }) },
);

const hostStep: fc.Arbitrary<HostStep> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({ do: fc.constantFrom('load' as const, 'store' as const), page }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constantFrom('dma' as const, 'dontneed' as const, 'poke' as const),
      page,
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('convert' as const), page, pages, toPrivate: fc.boolean() }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constantFrom('punch' as const, 'allocate' as const), page, pages }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('prefault' as const), vcpu, page, pages }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('slot' as const, 'remap' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('signal' as const), vcpu }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('move' as const), vcpu, cpu }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('hotplug' as const), cpu }) },
);

/** Any program; closing the file is the last thing that a thread does. */
export const anyProgram: fc.Arbitrary<Program> = fc
  .record({
    guests: fc.array(fc.array(guestStep, { minLength: 2, maxLength: 7 }), { minLength: 1, maxLength: 2 }),
    hosts: fc.array(fc.array(hostStep, { minLength: 1, maxLength: 6 }), { minLength: 1, maxLength: 2 }),
    budget: fc.integer({ min: 1, max: 4 }),
    discards: fc.boolean(),
    closes: fc.nat(9),
  })
  .map(({ closes, hosts, ...rest }) => ({
    ...rest,
    hosts: closes > 0 ? hosts : [[...hosts[0]!, { do: 'close' as const }], ...hosts.slice(1)],
  }));
