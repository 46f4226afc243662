-- Vectors of the tokens of a memory, 64 bytes each and at most 96, for looking closely at the first candidates of a search. They are
-- never compressed, which gains nothing, and stand beside one another: a search reads two hundred.
create table memory_tokens (
  tenant_id text not null,
  place bigint not null,
  -- Who made them: those of other models mean something else.
  model text not null,
  tokens bytea not null check (octet_length(tokens) between 64 and 6144 and octet_length(tokens) % 64 = 0),
  primary key (tenant_id, place)
) partition by hash (tenant_id);
alter table memory_tokens alter column tokens set storage external;

do $$
declare
  part integer;
  name text;
begin
  for part in 0..15 loop
    execute format('create table %I partition of memory_tokens for values with (modulus 16, remainder %s) '
      'with (toast_tuple_target = 8160)', 'memory_tokens_' || part, part);
  end loop;
  foreach name in array array['memory_tokens'] || array(select 'memory_tokens_' || n from generate_series(0, 15) as n) loop
    execute format('alter table %I enable row level security', name);
    execute format('alter table %I force row level security', name);
    execute format('create policy tenant on %I using (tenant_id = nullif(current_setting(''app.tenant'', true), ''''))', name);
  end loop;
end $$;

-- They go with their memory, whoever deletes it: replicas of before this migration too.
create function forget_tokens() returns trigger language plpgsql set search_path = memory as $$
begin
  delete from memory_tokens known using gone where known.tenant_id = gone.tenant_id and known.place = gone.place;
  return null;
end $$;
create trigger forget_tokens after delete on memory_episode referencing old table as gone
  for each statement execute function forget_tokens();
create trigger forget_tokens after delete on memory_episode_384 referencing old table as gone
  for each statement execute function forget_tokens();
create trigger forget_tokens after delete on memory_episode_any referencing old table as gone
  for each statement execute function forget_tokens();
