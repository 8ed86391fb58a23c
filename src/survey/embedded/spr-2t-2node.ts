import { type EmbeddedHost, machineOf, plainLowMap } from './embedded-host.ts';

/** 2 TiB on two nodes, half the KeyIDs private (figures: issue 385 of canonical/tdx). @internal */
export const SPR_2T_2NODE: EmbeddedHost = {
  machine: machineOf({
    name: 'spr-2t-2node',
    cpuModel: 'sapphire-rapids',
    keyIds: { mktme: 31, tdx: 32 },
    cmrs: [
      { start: 0x100000, end: 0x77800000 },
      { start: 0x1_0000_0000, end: 0x100_3e00_0000 },
      { start: 0x100_8000_0000, end: 0x200_4000_0000 },
    ],
    lowMap: plainLowMap(0x77800000),
    processors: { present: 224, slots: 0, packages: 2, nodes: [0, 1] },
    module: '1.5.06',
  }),
  kernel: { hibernationDisabled: true },
  observed: {
    keyIds: { start: 32, end: 64 },
    module: { major: 1, minor: 5, buildDate: 20240725, buildNumber: 784 },
    pamtKb: 8396820,
    initialized: true,
  },
  expected: { pamtKb: 8396820, maxTds: 31, tdmrs: 3, initialisesWithMemblockHoles: true },
};
