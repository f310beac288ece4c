// Wall times and instants, without a browser: node has the same Intl.
import assert from 'node:assert/strict';
import test from 'node:test';

import { gapAround, instantsOf, isZone, offsetAt, offsetName, wallTime } from '../../web/console/zoned.js';

/** @param {string} wall @param {string} zone */
const instants = (wall, zone) => (instantsOf(wall, zone) ?? []).map((instant) => new Date(instant).toISOString().slice(0, 19));

test('a wall time is one instant on all days but two', () => {
  assert.deepEqual(instants('2026-11-29T20:00', 'Europe/Berlin'), ['2026-11-29T19:00:00']);
  assert.deepEqual(instants('2026-07-01T20:00:30', 'Europe/Berlin'), ['2026-07-01T18:00:30']);
  assert.deepEqual(instants('2026-11-29T20:00', 'Asia/Shanghai'), ['2026-11-29T12:00:00']);
  assert.deepEqual(instants('2026-11-29T20:00', 'Asia/Kolkata'), ['2026-11-29T14:30:00']);
  assert.deepEqual(instants('2026-11-29T20:00', 'UTC'), ['2026-11-29T20:00:00']);
});

test('a time that the clocks skip is no instant, and the gap is known', () => {
  assert.deepEqual(instants('2027-03-28T02:30', 'Europe/Berlin'), []);
  assert.deepEqual(gapAround('2027-03-28T02:30', 'Europe/Berlin'), { from: '2027-03-28T02:00:00', to: '2027-03-28T03:00:00' });
  assert.deepEqual(gapAround('2027-03-28T02:00', 'Europe/Berlin'), { from: '2027-03-28T02:00:00', to: '2027-03-28T03:00:00' });
  assert.deepEqual(gapAround('2026-03-08T02:59:59', 'America/New_York'), { from: '2026-03-08T02:00:00', to: '2026-03-08T03:00:00' });
});

test('the edges of a gap are instants', () => {
  assert.deepEqual(instants('2027-03-28T01:59:59', 'Europe/Berlin'), ['2027-03-28T00:59:59']);
  assert.deepEqual(instants('2027-03-28T03:00', 'Europe/Berlin'), ['2027-03-28T01:00:00']);
  assert.equal(gapAround('2027-03-28T03:00', 'Europe/Berlin'), null);
});

test('a time that happens twice is two instants, the first one first', () => {
  assert.deepEqual(instants('2026-10-25T02:30', 'Europe/Berlin'), ['2026-10-25T00:30:00', '2026-10-25T01:30:00']);
  assert.deepEqual(instants('2026-11-01T01:00', 'America/New_York'), ['2026-11-01T05:00:00', '2026-11-01T06:00:00']);
  assert.deepEqual(instants('2026-10-25T03:00', 'Europe/Berlin'), ['2026-10-25T02:00:00']);
  assert.deepEqual(instants('2026-10-25T01:59:59', 'Europe/Berlin'), ['2026-10-24T23:59:59']);
});

test('Chatham is 12:45 or 13:45 ahead', () => {
  assert.deepEqual(instants('2026-07-01T20:00', 'Pacific/Chatham'), ['2026-07-01T07:15:00']);
  assert.deepEqual(instants('2026-12-01T20:00', 'Pacific/Chatham'), ['2026-12-01T06:15:00']);
  assert.equal(offsetName(Date.UTC(2026, 11, 1), 'Pacific/Chatham'), 'UTC+13:45');
  assert.deepEqual(instants('2026-09-27T03:00', 'Pacific/Chatham'), []);
  assert.deepEqual(gapAround('2026-09-27T03:00', 'Pacific/Chatham'), { from: '2026-09-27T02:45:00', to: '2026-09-27T03:45:00' });
  assert.equal(instants('2026-04-05T03:00', 'Pacific/Chatham').length, 2);
});

test('Lord Howe goes forward by half an hour', () => {
  assert.deepEqual(instants('2026-10-04T02:15', 'Australia/Lord_Howe'), []);
  assert.deepEqual(gapAround('2026-10-04T02:15', 'Australia/Lord_Howe'), { from: '2026-10-04T02:00:00', to: '2026-10-04T02:30:00' });
  assert.deepEqual(instants('2026-10-04T02:30', 'Australia/Lord_Howe'), ['2026-10-03T15:30:00']);
  assert.equal(instants('2026-04-05T01:45', 'Australia/Lord_Howe').length, 2);
});

test('a day that a zone skipped is a gap', () => {
  assert.deepEqual(instants('2011-12-30T12:00', 'Pacific/Apia'), []);
  assert.deepEqual(gapAround('2011-12-30T12:00', 'Pacific/Apia'), { from: '2011-12-30T00:00:00', to: '2011-12-31T00:00:00' });
});

test('a gap at midnight ends on the same day', () => {
  assert.deepEqual(gapAround('2026-04-24T00:30', 'Africa/Cairo'), { from: '2026-04-24T00:00:00', to: '2026-04-24T01:00:00' });
});

test('the ends of years are where the zone has them', () => {
  assert.deepEqual(instants('2027-01-01T00:00', 'Pacific/Kiritimati'), ['2026-12-31T10:00:00']);
  assert.deepEqual(instants('2026-12-31T23:59:59', 'Pacific/Pago_Pago'), ['2027-01-01T10:59:59']);
  assert.equal(wallTime(Date.UTC(2026, 11, 31, 23, 30), 'Europe/Berlin'), '2027-01-01T00:30:00');
  assert.equal(wallTime(Date.UTC(2027, 0, 1, 0, 0), 'America/New_York'), '2026-12-31T19:00:00');
  assert.deepEqual(instants('2028-02-29T12:00', 'Asia/Tokyo'), ['2028-02-29T03:00:00']);
});

test('what is no time is none', () => {
  for (const nothing of ['', '2026-02-30T10:00', '2027-02-29T10:00', '2026-11-29', '2026-11-29T24:00', '2026-11-29 20:00', '26-11-29T20:00']) {
    assert.equal(instantsOf(nothing, 'UTC'), null, nothing);
    assert.equal(gapAround(nothing, 'UTC'), null, nothing);
  }
});

test('a form that is opened again shows the same wall time', () => {
  for (const zone of ['UTC', 'Europe/Berlin', 'Pacific/Chatham', 'Australia/Lord_Howe', 'America/St_Johns', 'Africa/Casablanca', 'Asia/Shanghai']) {
    for (let hours = 0; hours < 366 * 24; hours += 1) {
      const instant = Date.UTC(2026, 0, 1) + hours * 3_600_000 + 1_800_000;
      const wall = wallTime(instant, zone);
      assert.ok(instantsOf(wall, zone)?.includes(instant), `${zone} ${wall}`);
    }
  }
});

test('offsets have names, and milliseconds do not change them', () => {
  assert.equal(offsetName(Date.UTC(2026, 0, 1), 'UTC'), 'UTC');
  assert.equal(offsetName(Date.UTC(2026, 0, 1), 'Europe/Berlin'), 'UTC+1');
  assert.equal(offsetName(Date.UTC(2026, 6, 1), 'America/St_Johns'), 'UTC−2:30');
  assert.equal(offsetAt(Date.UTC(2026, 0, 1) + 123, 'Asia/Kolkata'), 5.5 * 3_600_000);
  assert.equal(offsetAt(-1, 'UTC'), 0);
});

test('a zone that nobody knows is said so', () => {
  assert.equal(isZone('Europe/Berlin'), true);
  assert.equal(isZone('Europe/Atlantis'), false);
});
