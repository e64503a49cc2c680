-- The event log: audit trail, outbox and timeline. Rows are appended and never changed; retention
-- drops whole days.

create sequence order_event_batches_seq as bigint;

-- One row for each writing transaction, with an entry for each order that it moved. An entry of
-- its own row costs as much as the order's own update: row headers, an index entry for the reader
-- and one for the timeline, each 100 bytes of WAL for 150 that say something. Together they are
-- compressed as well (docs/adr/0105).
create table order_event_batches (
    xid     bigint      not null, -- the writing transaction
    seq     bigint      not null default nextval('order_event_batches_seq'),
    at      timestamptz not null, -- when it was written
    size    integer     not null, -- how many entries
    entries text        not null  -- a line of JSON each; in the order in which the rows were locked
) partition by range (at);

alter sequence order_event_batches_seq owned by order_event_batches.seq;

-- The order in which the relay reads, and how a timeline is found (orders.logged_in). Not unique:
-- a unique index would need the partition key.
create index order_event_batches_position on order_event_batches (xid, seq);

-- Takes what falls outside every day, so that a late partition never stops a write. It ought to
-- stay empty: `make_event_partitions` reports what it could not make because of it.
create table order_event_batches_default partition of order_event_batches default;

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
        name := 'order_event_batches_' || to_char(day, 'YYYYMMDD');
        continue when to_regclass(name) is not null;
        begin
            execute format('create table %I (like order_event_batches including all excluding indexes)', name);
            execute format('alter table order_event_batches attach partition %I for values from (%L) to (%L)',
                           name, day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC');
            made := made + 1;
        exception when check_violation then
            raise warning 'the default partition holds entries of %, they stay there', day;
        end;
    end loop;
    return made;
end
$$;

-- lz4 compresses five times as fast as the built-in method; a server that was built without it
-- takes that one. Partitions copy the setting from the table.
do $$
begin
    alter table order_event_batches alter column entries set compression lz4;
    alter table order_event_batches_default alter column entries set compression lz4;
exception when feature_not_supported then
    raise notice 'this server was built without lz4; the event log is compressed by pglz';
end
$$;

select make_event_partitions(14);

-- The entries as rows, for people and reports. Reads all of a day; one order's timeline is found
-- at once by `recharged orders show`, or from orders.logged_in.
create view order_events as
select batch.xid, batch.seq,
       timestamptz 'epoch' + (entry.data->>'at')::bigint * interval '1 microsecond' as at,
       (entry.data->>'v')::integer as version,
       entry.data->>'id' as order_id,
       entry.data->>'k' as kind,
       entry.data
from order_event_batches as batch,
     string_to_table(batch.entries, e'\n') as line,
     lateral (select line::jsonb as data) as entry;

-- The last batch that is known to be published; one row. `at` lets a reader leave out the days
-- before it.
create table relay_cursor (
    only_one boolean     primary key default true check (only_one),
    xid      bigint      not null,
    seq      bigint      not null,
    at       timestamptz not null
);
insert into relay_cursor (xid, seq, at) values (0, 0, '-infinity');
