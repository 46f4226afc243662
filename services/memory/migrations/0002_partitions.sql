-- Memories of a tenant live together: sixteen hash partitions, so that one tenant's search walks a sixteenth of the graph.
-- Vectors are kept and indexed in half precision: half the memory, the same neighbours.
alter table memory_episode rename to memory_episode_whole;
alter table memory_episode_384 rename to memory_episode_384_whole;
drop view memory;

create sequence memory_place;

create table memory_episode (
  tenant_id text not null,
  id text not null,
  -- A short name for the row, in the order of storing; what the words of the memory point to.
  place bigint not null default nextval('memory_place'),
  agent_name text not null,
  embedding halfvec(1536) not null,
  embedding_model text not null default '',
  embedding_set text not null default '',
  content text not null,
  content_hash bytea not null,
  memory_type text not null,
  session_id text not null,
  turn_id text not null,
  tags text[] not null,
  metadata jsonb not null,
  importance double precision not null,
  policy_version text not null default '',
  created_at timestamptz not null default now(),
  updated_at timestamptz,
  expires_at timestamptz,
  -- Whether the graph knows it. What it does not know is compared one by one: exact, and fast while there is little of it.
  in_graph boolean not null default false,
  primary key (tenant_id, id)
) partition by hash (tenant_id);
create table memory_episode_384 (like memory_episode including defaults, primary key (tenant_id, id))
  partition by hash (tenant_id);
alter table memory_episode_384 alter column embedding type halfvec(384);

-- The words of every memory, for BM25 within the tenant. The order of the key is that of the question: which memories of this
-- tenant hold this word? Comparing texts leaks nothing, so the index serves under row level security, where a full text index
-- would not be used.
create table memory_word (
  tenant_id text not null,
  word text collate "C" not null,
  place bigint not null,
  times smallint not null,
  length smallint not null,
  primary key (tenant_id, word, place) include (times, length)
) partition by hash (tenant_id);

-- How much a tenant keeps: for limits, and for the statistics of BM25.
create table memory_count (
  tenant_id text not null,
  memory_type text not null,
  memories bigint not null,
  characters bigint not null,
  words bigint not null,
  primary key (tenant_id, memory_type)
);
create table memory_retention (
  tenant_id text not null,
  memory_type text not null,
  max_memories bigint not null,
  max_days integer not null,
  primary key (tenant_id, memory_type)
);
-- When a memory was last found, apart from the row itself, which its graph would have to take anew.
create table memory_use (
  tenant_id text not null,
  place bigint not null,
  recalled_at timestamptz not null,
  times bigint not null,
  primary key (tenant_id, place)
);
create table forget_receipt (
  tenant_id text not null,
  id text not null,
  subject_id text not null,
  content_sha256 bytea not null,
  requested_by text not null,
  deleted_at timestamptz not null,
  primary key (tenant_id, id)
);
create table conversation (
  tenant_id text not null,
  session_id text not null,
  summary text not null,
  summarized_turns integer not null,
  primary key (tenant_id, session_id)
);

do $$
declare
  name text;
  part integer;
begin
  foreach name in array array['memory_episode', 'memory_episode_384', 'memory_word'] loop
    for part in 0..15 loop
      execute format('create table %I partition of %I for values with (modulus 16, remainder %s)',
        name || '_' || part, name, part);
      execute format('alter table %I enable row level security', name || '_' || part);
      execute format('alter table %I force row level security', name || '_' || part);
      execute format('create policy tenant on %I using (tenant_id = nullif(current_setting(''app.tenant'', true), ''''))',
        name || '_' || part);
    end loop;
  end loop;
  foreach name in array array['memory_episode', 'memory_episode_384', 'memory_word', 'memory_count', 'memory_retention',
    'memory_use', 'forget_receipt', 'conversation'] loop
    execute format('alter table %I enable row level security', name);
    execute format('alter table %I force row level security', name);
    execute format(
      'create policy tenant on %I using (tenant_id = nullif(current_setting(''app.tenant'', true), ''''))', name);
  end loop;
end $$;

create unique index memory_episode_same on memory_episode (tenant_id, embedding_set, agent_name, memory_type, content_hash);
create unique index memory_episode_384_same
  on memory_episode_384 (tenant_id, embedding_set, agent_name, memory_type, content_hash);
create index memory_episode_place on memory_episode (tenant_id, place);
create index memory_episode_384_place on memory_episode_384 (tenant_id, place);
create index memory_episode_by_time on memory_episode (tenant_id, created_at, id);
create index memory_episode_384_by_time on memory_episode_384 (tenant_id, created_at, id);
create index memory_episode_session on memory_episode (tenant_id, session_id, created_at, place) where session_id <> '';
create index memory_episode_384_session on memory_episode_384 (tenant_id, session_id, created_at, place) where session_id <> '';
create index memory_episode_fresh on memory_episode (tenant_id, place) where not in_graph;
create index memory_episode_384_fresh on memory_episode_384 (tenant_id, place) where not in_graph;
create index memory_episode_near on memory_episode using hnsw (embedding halfvec_cosine_ops) where in_graph;
create index memory_episode_384_near on memory_episode_384 using hnsw (embedding halfvec_cosine_ops) where in_graph;

-- The owner sees no rows without a tenant; moving is done tenant by tenant.
do $$
declare
  tenant text;
begin
  alter table memory_episode_whole no force row level security;
  alter table memory_episode_384_whole no force row level security;
  for tenant in
    select tenant_id from memory_episode_whole union select tenant_id from memory_episode_384_whole
  loop
    perform set_config('app.tenant', tenant, true);
    insert into memory_episode (tenant_id, id, agent_name, embedding, content, content_hash, memory_type, session_id, turn_id,
        tags, metadata, importance, created_at, expires_at)
      select tenant_id, id, agent_name, embedding::halfvec(1536), content, content_hash, memory_type, session_id, turn_id,
        tags, metadata, importance, created_at, expires_at
      from memory_episode_whole where tenant_id = tenant;
    insert into memory_episode_384 (tenant_id, id, agent_name, embedding, content, content_hash, memory_type, session_id,
        turn_id, tags, metadata, importance, created_at, expires_at)
      select tenant_id, id, agent_name, embedding::halfvec(384), content, content_hash, memory_type, session_id, turn_id,
        tags, metadata, importance, created_at, expires_at
      from memory_episode_384_whole where tenant_id = tenant;
    -- Words are the service's to cut; until a moved memory is changed its words are those of the English dictionary.
    insert into memory_word (tenant_id, word, place, times, length)
      select tenant, lexeme, place, least(coalesce(cardinality(positions), 1), 32767), 1 + length(content) / 12
      from (select place, content from memory_episode where tenant_id = tenant
        union all select place, content from memory_episode_384 where tenant_id = tenant) as moved,
        unnest(to_tsvector('english', content))
      on conflict do nothing;
    insert into memory_count (tenant_id, memory_type, memories, characters, words)
      select tenant, memory_type, count(*), sum(length(content)), sum(1 + length(content) / 12)
      from (select memory_type, content from memory_episode where tenant_id = tenant
        union all select memory_type, content from memory_episode_384 where tenant_id = tenant) as moved
      group by memory_type;
  end loop;
end $$;
drop table memory_episode_whole;
drop table memory_episode_384_whole;

-- What every reader sees, whatever the width. The caller's own rights and tenant apply.
create view memory with (security_invoker = true) as
  select tenant_id, id, place, agent_name, embedding_model, embedding_set, content, content_hash, memory_type, session_id,
    turn_id, tags, metadata, importance, policy_version, created_at, updated_at, expires_at from memory_episode
  union all
  select tenant_id, id, place, agent_name, embedding_model, embedding_set, content, content_hash, memory_type, session_id,
    turn_id, tags, metadata, importance, policy_version, created_at, updated_at, expires_at from memory_episode_384;
