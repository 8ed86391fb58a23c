import { expect, it } from 'vitest';
import { pfnOf } from '../../../src/abi/address.ts';
import { genoaMachine } from '../../../src/lab/machines/genoa.ts';
import { packData, unpackData } from '../../../src/lab/snapshot/plain-data.ts';
import { Machine } from '../../../src/machine/machine.ts';
import { SEV_STATUS, SNP_ADDRESS, SNP_COMMAND } from '../../../src/machine/snp/firmware/commands.ts';
import { BUFFER, initialisedSnpMachine, PAGES } from './snp-machine.ts';

it('goes on after saving and loading: owners, guests, firmware', () => {
  const { machine, update, command } = initialisedSnpMachine();
  update(PAGES, { assigned: true, immutable: true });
  const address = SNP_ADDRESS.encode({ address: BigInt(PAGES) });
  expect(command(SNP_COMMAND.GCTX_CREATE, address)).toBe(0);
  const saved = unpackData(packData(machine.save())) as ReturnType<Machine['save']>;
  const again = new Machine(genoaMachine({ memoryBytes: 2 ** 30, asids: 8, minSevAsid: 5 }));
  again.restore(saved);
  expect(again.snp!.rmp.at(pfnOf(PAGES))).toEqual(machine.snp!.rmp.at(pfnOf(PAGES)));
  expect(again.snp!.save()).toEqual(machine.snp!.save());
  again.memory.write(BUFFER, address, 0);
  const { firmware } = again.snp!;
  expect(firmware.command(SNP_COMMAND.GCTX_CREATE, BUFFER)).toBe(SEV_STATUS.INVALID_PAGE_STATE);
  expect(firmware.command(SNP_COMMAND.DECOMMISSION, BUFFER)).toBe(0);
});
