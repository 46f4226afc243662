-- One table a width of embedding, the same otherwise; nothing is ever padded.
create table memory_episode (
  tenant_id text not null,
  id text not null,
  agent_name text not null,
  embedding vector(1536) not null,
  content text not null,
  content_hash bytea not null,
  memory_type text not null,
  session_id text not null,
  turn_id text not null,
  tags text[] not null,
  metadata jsonb not null,
  importance double precision not null,
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  primary key (tenant_id, id),
  unique (tenant_id, agent_name, memory_type, content_hash)
);
create table memory_episode_384 (like memory_episode including all);
alter table memory_episode_384 alter column embedding type vector(384);

create index memory_episode_embedding_idx on memory_episode using hnsw (embedding vector_cosine_ops);
create index memory_episode_384_embedding_idx on memory_episode_384 using hnsw (embedding vector_cosine_ops);
create index memory_episode_time_idx on memory_episode (tenant_id, created_at, id);
create index memory_episode_384_time_idx on memory_episode_384 (tenant_id, created_at, id);

create table short_term_turn (
  tenant_id text not null,
  session_id text not null,
  turn_id text not null,
  place bigint generated always as identity,
  agent_name text not null,
  content text not null,
  created_at timestamptz not null,
  primary key (tenant_id, session_id, turn_id)
);
create index short_term_turn_place_idx on short_term_turn (tenant_id, session_id, place);

do $$
declare
  name text;
begin
  foreach name in array array['memory_episode', 'memory_episode_384', 'short_term_turn'] loop
    execute format('alter table %I enable row level security', name);
    execute format('alter table %I force row level security', name);
    execute format(
      'create policy tenant on %I using (tenant_id = nullif(current_setting(''app.tenant'', true), ''''))', name);
  end loop;
end $$;

-- What every reader sees, whatever the width. The caller's own rights and tenant apply.
create view memory with (security_invoker = true) as
  select tenant_id, id, agent_name, content, content_hash, memory_type, session_id, turn_id, tags, metadata, importance,
    created_at, expires_at from memory_episode
  union all
  select tenant_id, id, agent_name, content, content_hash, memory_type, session_id, turn_id, tags, metadata, importance,
    created_at, expires_at from memory_episode_384;
