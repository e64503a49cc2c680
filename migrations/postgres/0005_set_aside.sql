-- Orders behind the watchdog's low-water mark that are not decided all the same: their rows cannot be read, or what
-- becomes of them cannot be written. The mark goes past them, so that nobody reads again and again what came after them;
-- they are looked at by name until they are decided.
create table set_aside (
    order_id text collate "C" primary key
);
