-- Orders behind the watchdog's low-water mark that are not decided all the same, as in Postgres.
create table set_aside (
    order_id text primary key
) strict, without rowid;
