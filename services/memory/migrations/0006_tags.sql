-- Memories are found by a tag as by a word: under row level security Postgres may not look into arrays by an index, because comparing
-- them could leak. A tag stands behind a sign that no word has. The owner sees no rows without a tenant.
do $$
declare
  tenant text;
begin
  alter table memory_count no force row level security;
  for tenant in select distinct tenant_id from memory_count loop
    perform set_config('app.tenant', tenant, true);
    insert into memory_word (tenant_id, word, place, times, length)
      select tenant, '#' || tag, place, 1, 0 from memory, unnest(tags) as tag where embedding_set = ''
      on conflict do nothing;
  end loop;
  perform set_config('app.tenant', '', true);
  alter table memory_count force row level security;
end $$;
