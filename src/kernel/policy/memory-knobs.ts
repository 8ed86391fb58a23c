/** The choices about memory (Linux host rules 1.3, 1.4, 1.8, 1.13, 5.8, 5.9). */
import type { KernelPolicy } from './kernel-policy.ts';
import type { Knob } from './knob.ts';

/** @internal */
export const MEMORY_KNOBS: {
  readonly [K in
    | 'tdxMemory'
    | 'tdxNodes'
    | 'hotplug'
    | 'tdAllocation'
    | 'dynamicPamt'
    | 'pamtPlacement'
    | 'holes'
    | 'cmrRemoval'
    | 'trustCmrCount']: Knob<KernelPolicy[K]>;
} = {
  tdxMemory: {
    title: 'which memory becomes TDX memory',
    changes: 'before-enabling',
    values: [
      {
        value: 'boot-ram',
        meaning: 'All memory that the page allocator has when the module is initialised.',
        by: 'Kai Huang, with Dave Hansen; Linux',
        why: 'Any page of the allocator can go to a TD, so no allocation has to care.',
        weakness: 'Memory that comes later can never be used by a TD, not even inside a CMR.',
      },
      {
        value: 'boot-ram-and-pmem',
        meaning: 'As boot-ram, and legacy persistent memory (e820 type 12) as well.',
        by: 'Kai Huang, 2022; early versions of the TDX host series',
        why: 'Legacy PMEM may become System RAM through dax/kmem, and then it is TDX memory already.',
        weakness: 'PAMT is paid for PMEM that may never hold a guest, and outside every CMR it stops TDX.',
      },
      {
        value: 'cmr',
        meaning: 'Every convertible memory region, whether or not memory in it is online yet.',
        by: 'Kai Huang, as what the architecture allows; vendor kernels',
        why: 'CMRs are what the hardware guarantees: memory onlined in one later is TDX memory at once.',
        weakness: 'PAMT is paid for memory that may never be there.',
      },
      {
        value: 'nodes',
        meaning: 'The memory that the nodes of the knob tdxNodes have when the module is initialised.',
        by: 'Dan Williams, 2022, as a TDX-capable subset',
        why: 'Mixed systems become possible, and PAMT is paid only where TDs run.',
        weakness: 'An allocation that trusts every page gets one of another node, and its TD dies of it.',
      },
    ],
  },
  tdxNodes: {
    title: 'nodes whose memory becomes TDX memory under tdxMemory=nodes: a list such as 0,2',
    changes: 'before-enabling',
    values: [],
  },
  hotplug: {
    title: 'what happens to memory that is plugged in while TDX is enabled',
    changes: 'any-time',
    values: [
      {
        value: 'reject-non-tdx',
        meaning: 'Going online is refused unless the range lies in one entry of the TDX memory list.',
        by: 'Kai Huang, 2022; Linux',
        why: 'Memory that is known can go and come back, and the allocator stays all TDX memory.',
        weakness: 'The refusal comes late, block by block: 64 GiB of CXL memory fail 512 times with EPERM.',
      },
      {
        value: 'refuse-all',
        meaning: 'No memory is added while TDX is enabled, whatever it is.',
        by: 'first versions of the TDX host series, 2022',
        why: 'Nothing about memory changes under TDX, so nothing about it can go wrong.',
        weakness: 'Memory that would do no harm, and even TDX memory, is refused: a host cannot grow.',
      },
      {
        value: 'reject-at-add',
        meaning: 'The hot-add itself is refused, in whole, when its range is not TDX memory.',
        by: 'Huang Ying, 2024',
        why: 'One refusal with the whole range in the log instead of one for every block.',
        weakness: 'Memory that would have stayed offline or become a device is refused as well.',
      },
      {
        value: 'winner-takes-all',
        meaning: 'With TDX on no memory is added; with memory added TDX does not come up.',
        by: 'Dave Hansen, 2022',
        why: 'Neither feature has to know the other, and whoever asked first keeps what it has.',
        weakness: 'Which of the two works depends on the order of boot: TDs fail on a host that once grew.',
      },
      {
        value: 'allow',
        meaning: 'Memory comes online whatever it is, and is enumerated as not TDX-capable.',
        by: 'Dave Hansen (option 2: fail at PAGE.ADD or AUG), 2022',
        why: 'TDX has no effect on the rest of the host: every DIMM and CXL window can be used.',
        weakness: 'The allocator may hand a TD a page that the module refuses: a running TD dies.',
      },
      {
        value: 'separate-zone',
        meaning:
          'Memory that is not TDX memory goes to the zone NonTdx, for allocations that say they can use it.',
        by: 'the mixed-memory discussion of 2022',
        why: 'User space uses the memory, and no allocation for a TD or for the kernel can meet it.',
        weakness: 'Allocations without the flag fail while the zone is free: memory is there and unusable.',
      },
      {
        value: 'separate-node',
        meaning: 'Memory that is not TDX memory becomes a node of its own.',
        by: 'Dan Williams, 2022',
        why: 'Existing tools (numactl, cpusets) keep TDs on TDX memory without a new kernel interface.',
        weakness: 'Without a memory policy an allocation falls back to that node, and its TD dies of it.',
      },
    ],
  },
  tdAllocation: {
    title: 'what an allocation for a TD does',
    changes: 'any-time',
    values: [
      {
        value: 'trust',
        meaning: 'Any page of the allocator is given; the module refuses a wrong one.',
        by: 'Kai Huang; Linux',
        why: 'All memory is TDX memory, so looking would cost time and never find anything.',
        weakness: 'Once other memory is in the allocator, the module refuses the page and the TD dies.',
      },
      {
        value: 'check',
        meaning: 'The page is looked at; a wrong one is given back and the allocation fails with a reason.',
        by: 'reviewers of the mixed-memory proposal, 2022',
        why: 'A TD gets an error it can report instead of dying of a page.',
        weakness: 'It fails although TDX memory is free, and one TD fails where an equal one succeeded.',
      },
      {
        value: 'constrain',
        meaning: 'Only nodes and zones all of whose memory is TDX memory are asked.',
        by: 'Dan Williams, 2022',
        why: 'What a TD can use is known beforehand and never depends on luck.',
        weakness:
          'One DIMM that is not TDX memory in a zone makes all the rest of the zone unusable for TDs.',
      },
      {
        value: 'retry',
        meaning: 'Wrong pages are put aside until a TDX page is found or none is left.',
        by: 'reviewers of the mixed-memory proposal, 2022',
        why: 'An allocation fails only when no TDX memory is free.',
        weakness: 'It takes as long as there are wrong pages before the right one.',
      },
    ],
  },
  dynamicPamt: {
    title: 'whether metadata of 4 KiB pages is allocated as it is needed',
    changes: 'before-enabling',
    values: [
      {
        value: false,
        meaning: 'PAMT for all TDX memory is allocated when the module is initialised.',
        by: 'Linux 7.2',
        why: 'A page for a TD never needs another page, so nothing can fail later.',
        weakness: 'It costs 0.4% of all memory, even if no TD ever runs.',
      },
      {
        value: true,
        meaning: 'A pair of pages is given per 2 MiB that hold 4 KiB pages of a TD (where the module can).',
        by: 'Dynamic PAMT series, 2026',
        why: 'The static cost falls from 0.4% to 0.004% of memory.',
        weakness: 'A page for a TD may need two more: growing a TD can fail for want of its metadata.',
      },
    ],
  },
  pamtPlacement: {
    title: 'where PAMTs lie, and when their memory is taken',
    changes: 'before-enabling',
    values: [
      {
        value: 'local',
        meaning: 'On the node of the first memory of the TDMR, or where there is room.',
        by: 'Linux',
        why: 'The module reaches metadata as fast as the memory that it describes.',
        weakness: 'A TDMR of several nodes has its whole PAMT on the first, which pays for the others.',
      },
      {
        value: 'spread',
        meaning: 'TDMR by TDMR over all nodes that have TDX memory.',
        by: 'operators of hosts with small nodes',
        why: 'No node loses more memory than another.',
        weakness: 'The module reaches across nodes for metadata.',
      },
      {
        value: 'reserved',
        meaning: 'As local, and the memory is set aside at boot when the module is initialised later.',
        by: 'those who feared fragmentation in 2022',
        why: 'The first TD comes up after months of uptime, however fragmented memory is.',
        weakness: 'The memory is spent at boot although no TD may ever run.',
      },
    ],
  },
  holes: {
    title: 'what in a TDMR needs a reserved area',
    changes: 'before-enabling',
    values: [
      {
        value: 'memblock',
        meaning: 'Everything that is not TDX memory.',
        by: 'Linux',
        why: 'The module can never be given a page that the kernel does not mean to give.',
        weakness: 'A memory map in splinters has more holes than reserved areas: TDX does not come up.',
      },
      {
        value: 'cmr',
        meaning: 'Only what is outside every CMR.',
        by: 'metadata series of 2024; vendor kernels',
        why: 'The module accepts the rest, and splintered maps come up.',
        weakness: 'Firmware that reports wrong CMRs decides what the module takes for memory.',
      },
    ],
  },
  cmrRemoval: {
    title: 'what follows when memory inside a CMR is plugged in or taken away',
    changes: 'any-time',
    values: [
      {
        value: 'error',
        meaning: 'The log says loudly that the firmware is broken or attacked, and the kernel goes on.',
        by: 'reviewers of the TDX host series, 2022',
        why: 'Machines stay up; a TD whose memory went dies of the machine check, and only that TD.',
        weakness: 'The next access to memory that is gone is a machine check at some later, unrelated place.',
      },
      {
        value: 'bug',
        meaning: 'The kernel stops.',
        by: 'first versions of the TDX host series, 2022',
        why: 'Firmware that breaks the architecture’s promise is not to be trusted with anything.',
        weakness: 'A firmware bug that does no harm takes the host and all its guests down.',
      },
    ],
  },
  trustCmrCount: {
    title: 'whether NUM_CMRS is taken for the number of CMRs',
    changes: 'before-enabling',
    values: [
      {
        value: false,
        meaning: 'The list of CMRs ends at the first empty entry.',
        by: 'kernels that meet such modules',
        why: 'Some modules report 32 and leave the tail entries empty; hosts with them come up.',
        weakness: 'An empty entry before the end hides the CMRs behind it.',
      },
      {
        value: true,
        meaning: 'NUM_CMRS entries are read, empty ones are an error.',
        by: 'the published interface of the module',
        why: 'A count that does not fit its entries is a defect somebody should hear of.',
        weakness: 'Modules that report 32 for fewer fail initialisation.',
      },
    ],
  },
};
