-- What is to be told of an order at a moment of its own, whatever state it is in by then. A row is
-- inserted with its order and deleted by whoever tells it, in the statement that logs it: that is
-- what makes it once. Only what is still ahead stands here.
create table timers (
    due_at   timestamptz not null,
    order_id text        collate "C" not null,
    kind     text        not null check (kind in ('notification')),
    primary key (order_id, kind)
);

-- The watchdog reads in this order.
create index timers_due_at on timers (due_at, order_id);
