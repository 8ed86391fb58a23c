import { type EmbeddedHost, machineOf, plainLowMap } from './embedded-host.ts';

/** Two Xeon 8480C, 256 GiB on two nodes (figures: issue 285 of canonical/tdx). @internal */
export const SPR_256G_2NODE: EmbeddedHost = {
  machine: machineOf({
    name: 'spr-256g-2node',
    cpuModel: 'sapphire-rapids',
    keyIds: { mktme: 63, tdx: 64 },
    cmrs: [
      { start: 0x100000, end: 0x77800000 },
      { start: 0x1_0000_0000, end: 0x20_6e00_0000 },
      { start: 0x20_8000_0000, end: 0x40_7000_0000 },
    ],
    lowMap: plainLowMap(0x77800000),
    processors: { present: 224, slots: 0, packages: 2, nodes: [0, 1] },
    module: '1.5.05',
  }),
  kernel: { hibernationDisabled: true },
  observed: {
    keyIds: { start: 64, end: 128 },
    module: { major: 1, minor: 5, buildDate: 20240129, buildNumber: 698 },
    pamtKb: 1050636,
    initialized: true,
  },
  expected: { pamtKb: 1050636, maxTds: 63, tdmrs: 3, initialisesWithMemblockHoles: true },
};
