create table agent (
  tenant_id text not null,
  id text not null,
  name text not null,
  version text not null,
  style jsonb not null,
  config jsonb,
  monitors jsonb,
  capabilities text[] not null,
  state int not null,
  data bytea not null,
  request_id text,
  created_at timestamptz not null default now(),
  archived boolean not null default false,
  primary key (tenant_id, id),
  unique (tenant_id, name, version)
);
create unique index agent_request_idx on agent (tenant_id, request_id) where request_id is not null;

create table session (
  tenant_id text not null,
  id text not null,
  topic_start text not null,
  topic_final text,
  mode text not null,
  strategy text not null,
  converged boolean not null default false,
  rounds_executed int not null default 0,
  participants text[] not null,
  metadata jsonb not null,
  status int not null,
  starter_subject text not null,
  starter_roles text[] not null,
  request_id text,
  data bytea not null,
  started_at timestamptz not null default now(),
  ended_at timestamptz,
  primary key (tenant_id, id)
);
create unique index session_request_idx on session (tenant_id, request_id) where request_id is not null;
create index session_time_idx on session (tenant_id, started_at desc, id desc);

create table turn (
  tenant_id text not null,
  id text not null,
  session_id text not null,
  round int not null,
  agent_name text not null,
  prompt text not null,
  content text not null,
  confidence double precision,
  raw jsonb not null,
  data bytea not null,
  created_at timestamptz not null default now(),
  primary key (tenant_id, id),
  foreign key (tenant_id, session_id) references session (tenant_id, id)
);
create index turn_session_round_idx on turn (tenant_id, session_id, round);

create table task_graph (
  tenant_id text not null,
  id text not null,
  session_id text not null,
  graph_json jsonb not null,
  status text not null,
  created_at timestamptz not null default now(),
  primary key (tenant_id, id),
  foreign key (tenant_id, session_id) references session (tenant_id, id)
);

-- The log. `mac` is a keyed hash over this event and its predecessor's mac.
create table event (
  tenant_id text not null,
  session_id text not null,
  sequence bigint not null,
  kind text not null,
  payload bytea not null,
  mac bytea not null,
  primary key (tenant_id, session_id, sequence)
);
revoke update, delete, truncate on event from agentnet_orchestrator;

create table signal (
  tenant_id text not null,
  id text not null,
  session_id text not null,
  kind text not null,
  sender text not null,
  request_id text,
  created_at timestamptz not null default clock_timestamp(),
  primary key (tenant_id, id)
);
create unique index signal_request_idx on signal (tenant_id, session_id, request_id) where request_id is not null;
create index signal_session_idx on signal (tenant_id, session_id, created_at);

create table session_lease (
  tenant_id text not null,
  session_id text not null,
  owner text,
  fence bigint not null default 0,
  takeovers int not null default 0,
  expires_at timestamptz not null default '-infinity',
  ready boolean not null default true,
  ready_at timestamptz not null default clock_timestamp(),
  primary key (tenant_id, session_id)
);
create index session_lease_ready_idx on session_lease (ready_at) where ready;

do $$
declare
  name text;
begin
  foreach name in array array['agent', 'session', 'turn', 'task_graph', 'event', 'signal', 'session_lease'] loop
    execute format('alter table %I enable row level security', name);
    execute format('alter table %I force row level security', name);
    execute format(
      'create policy tenant on %I using (tenant_id = nullif(current_setting(''app.tenant'', true), ''''))', name);
  end loop;
end $$;

-- The driver claims sessions of all tenants; it sees who drives what, and no content.
grant select, update on session_lease to agentnet_orchestrator_driver;
create policy driver on session_lease to agentnet_orchestrator_driver using (true);
