/** Watches over who owns which page of a host, from outside, whenever it is told to look. */
import {
  kvmKnowsTheTables,
  mappingsHaveTheAttribute,
  mappingsLeadToTheirBacking,
  mappingsLieInSlots,
  noVmBreaks,
  referencesCoverMappings,
  rmpAgreesWithNestedTables,
  tlbsFollowTables,
} from './agreement-invariants.ts';
import { type HostLook, lookAt, type Watched } from './host-look.ts';
import {
  freePagesAreTheHosts,
  privatePageHasOneOwner,
  reachedPagesAreInUse,
  userSpaceMapsNoPrivatePage,
} from './owner-invariants.ts';
import type { OwnershipInvariant } from './ownership-invariant.ts';
import { devicesPinNoPrivatePage, kernelReadsNoSecret, userSpaceSeesNoSecret } from './secrecy-invariants.ts';

/** All of them. @public */
export const OWNERSHIP_INVARIANTS: readonly OwnershipInvariant[] = [
  userSpaceSeesNoSecret,
  kernelReadsNoSecret,
  devicesPinNoPrivatePage,
  privatePageHasOneOwner,
  userSpaceMapsNoPrivatePage,
  reachedPagesAreInUse,
  freePagesAreTheHosts,
  mappingsLieInSlots,
  mappingsHaveTheAttribute,
  mappingsLeadToTheirBacking,
  tlbsFollowTables,
  kvmKnowsTheTables,
  rmpAgreesWithNestedTables,
  referencesCoverMappings,
  noVmBreaks,
];

/** An invariant does not hold. @public */
export class OwnershipError extends Error {
  /** Names of the invariants. */
  readonly broken: readonly string[];

  constructor(breaches: readonly { readonly name: string; readonly text: string }[]) {
    super(breaches.map(({ name, text }) => `${name}: ${text}`).join('; '));
    this.name = 'OwnershipError';
    this.broken = [...new Set(breaches.map(({ name }) => name))];
  }
}

/** @public */
export class OwnershipWatch {
  readonly #watched: Watched;
  readonly #onceHidden = new Set<number>();
  /** Looks taken. */
  looks = 0;

  /** The lists of VMs and processes may grow. */
  constructor(watched: Watched) {
    this.#watched = watched;
  }

  /** Checks every invariant. Throws OwnershipError. */
  check(): void {
    this.looks++;
    const look: HostLook = lookAt(this.#watched, this.#onceHidden);
    const breaches = [];
    for (const invariant of OWNERSHIP_INVARIANTS) {
      for (const text of invariant(look)) breaches.push({ name: invariant.name, text });
    }
    if (breaches.length > 0) throw new OwnershipError(breaches);
  }
}
