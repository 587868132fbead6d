"""Everyday Korean sentences, as patterns, for the Korean demo corpora.

In a pattern ``{slot}`` is filled from `SLOTS` and ``{slot|을/를}`` takes the particle that agrees with the filling:
the first form after a final consonant, the second after a vowel. All is in the polite style (해요체); elders
get its honorific forms. Slots are separated by meaning, so that every sentence makes sense (nobody wears soup). The
vocabulary is small, so that each word occurs often in training.
"""

from __future__ import annotations

_FRUIT = ("사과", "수박", "딸기", "포도", "귤")
_DISH = ("국수", "김밥", "라면", "떡볶이", "불고기", "비빔밥", "만두", "미역국")
_SNACK = ("빵", "과자", "떡", "고구마", "피자")
_MARKETS = ("시장", "백화점", "가게", "마트")
_SHOPS = (*_MARKETS, "빵집", "서점", "꽃집")
_OUTDOORS = ("공원", "놀이터", "운동장", "바닷가", "마당")
_INDOORS = ("도서관", "박물관", "식당", "극장", "수영장")

SLOTS: dict[str, tuple[str, ...]] = {
    # People
    "who": ("엄마", "아빠", "동생", "누나", "형", "언니", "오빠", "삼촌", "이모", "사촌", "민수", "지영이"),
    "friend": ("친구", "동생", "사촌", "짝꿍", "이웃", "민수", "지영이", "언니"),
    "elder": ("할머니", "할아버지", "선생님", "외할머니"),
    "me": ("저", "우리"),
    "job": ("의사", "간호사", "가수", "요리사", "소방관", "경찰관", "화가", "농부"),
    # Time
    "past": ("어제", "아까", "지난주에", "오늘 아침에", "어제저녁에", "그저께"),
    "future": ("내일", "모레", "다음 주에", "이번 주말에", "방학에"),
    "habit": ("매일", "가끔", "자주", "항상", "주말마다", "아침마다"),
    "since": ("어제", "아침", "지난주", "주말"),
    "weekday": ("월요일", "화요일", "수요일", "목요일", "금요일", "토요일", "일요일"),
    "hour": ("한 시", "두 시", "세 시", "네 시", "다섯 시", "열 시"),
    "clock": ("여섯 시", "일곱 시", "여덟 시", "아홉 시"),
    "duration": ("한 시간", "두 시간", "세 시간", "삼십 분"),
    "season": ("봄", "여름", "가을", "겨울"),
    # Places
    "place": (*_SHOPS, *_OUTDOORS, *_INDOORS, "학교", "병원", "은행", "우체국"),
    "market": _MARKETS,
    "shop": _SHOPS,
    "outdoors": _OUTDOORS,
    "indoors": _INDOORS,
    "reading_place": ("도서관", "서점", "공원", "교실", "기차역"),
    "room": ("방", "거실", "부엌", "교실", "마루"),
    "city": ("서울", "부산", "제주도", "대구", "인천", "강릉"),
    "spot": ("책상 위", "의자 밑", "가방 안", "침대 옆", "문 앞", "서랍 속"),
    "near": ("아주 가까워요", "너무 멀어요", "조금 멀어요"),
    "place_is": ("조용해요", "넓어요", "복잡해요", "깨끗해요"),
    # Food
    "food": (*_FRUIT, *_DISH, *_SNACK),
    "fruit": _FRUIT,
    "dish": _DISH,
    "drink": ("물", "우유", "주스", "커피", "녹차"),
    "cups": ("한 잔", "두 잔", "세 잔"),
    "fruit_is": ("달아요", "맛있어요", "싱싱해요", "비싸요"),
    "dish_is": ("매워요", "짜요", "싱거워요", "뜨거워요"),
    # Things to read, see, hear and learn
    "read": ("책", "동화책", "만화책", "신문", "소설", "편지"),
    "mail": ("편지", "이메일", "카드", "쪽지"),
    "story": ("이야기", "일기", "시", "소설"),
    "watch": ("영화", "드라마", "뉴스", "야구 경기", "축구 경기", "연극"),
    "listen": ("음악", "노래", "라디오", "옛날이야기"),
    "learn": ("수영", "피아노", "태권도", "영어", "한국어", "요리", "기타", "스키"),
    "good_at": ("수영", "영어", "요리", "태권도", "노래", "축구", "농구"),
    "subject": ("수학", "국어", "과학", "음악", "미술", "역사", "영어"),
    "sport": ("축구", "농구", "야구", "달리기", "줄넘기"),
    # Things
    "object": (
        "가방", "연필", "지우개", "공책", "열쇠", "지갑", "우산", "시계", "안경", "인형", "컵", "장난감", "자전거",
    ),
    "thing_is": ("비싸요", "커요", "작아요", "무거워요", "가벼워요", "예뻐요"),
    "clothes": ("옷", "치마", "바지", "외투", "한복", "셔츠"),
    "shoes": ("신발", "양말", "운동화", "구두"),
    "color": ("빨간", "파란", "노란", "하얀", "까만", "초록색"),
    "present": ("선물", "꽃", "사진", "책", "장갑"),
    "transport": ("버스", "지하철", "기차", "택시"),
    "far": ("버스", "기차", "비행기"),
    # Animals, nature, body
    "animal": ("강아지", "고양이", "토끼", "곰", "호랑이", "원숭이", "말"),
    "pet": ("강아지", "고양이", "토끼", "거북이"),
    "pet_does": ("잠을 자요", "물을 마셔요", "혼자 놀아요", "밥을 잘 먹어요"),
    "weather": ("추워요", "더워요", "따뜻해요", "시원해요", "맑아요", "흐려요"),
    "rain": ("비", "눈"),
    "flower": ("개나리", "진달래", "장미", "해바라기"),
    "body": ("머리", "배", "다리", "팔", "손", "눈", "목", "허리", "발", "무릎"),
    # Doing and feeling
    "chore": ("청소", "빨래", "설거지", "심부름"),
    "please": ("창문을 닫아", "문을 열어", "불을 꺼", "조용히 해", "천천히 말해", "자리에 앉아"),
    "good_reason": ("시험이 끝나서", "선물을 받아서", "친구가 와서", "방학이 시작돼서"),
    "good_feeling": ("기뻐요", "행복해요", "신나요", "기분이 좋아요"),
    "bad_reason": ("늦게 일어나서", "길을 잃어버려서", "감기에 걸려서", "숙제가 많아서"),
    "bad_feeling": ("속상해요", "힘들어요", "슬퍼요"),
    # Places with numbers (`training.synthetic.conventions`)
    "door": ("창구", "출구", "자리", "교실"),
    "side": ("왼쪽", "오른쪽", "끝"),
}  # fmt: skip

PATTERNS: tuple[str, ...] = (
    # going and meeting
    "{me|은/는} {past} {place}에 갔어요.",
    "{me|은/는} {future} {place}에 갈 거예요.",
    "{who|은/는} {past} {friend|과/와} {place}에 갔어요.",
    "{who|은/는} {habit} {place}에서 {friend|을/를} 만나요.",
    "{past} {place} 앞에서 {friend|을/를} 만났어요.",
    "{hour}에 {place} 앞에서 {friend|이랑/랑} 만나요.",
    "{who|과/와} {hour}에 만나기로 했어요.",
    "{future} {who|이/가} {city|으로/로} 떠나요.",
    "{past} {who|이/가} {city}에서 왔어요.",
    "{who|은/는} {place|으로/로} 뛰어갔어요.",
    "{future} {place}에 같이 갈까요?",
    "{who|은/는} 언제 {place}에 와요?",
    "{who|이/가} {past} 저에게 전화했어요.",
    "{future} {who}에게 전화할 거예요.",
    # food
    "{who|은/는} {past} {food|을/를} 먹었어요.",
    "{who|이/가} {room}에서 {food|을/를} 먹고 있어요.",
    "{who|은/는} {food|을/를} 정말 좋아해요.",
    "{me|은/는} {food}보다 {food|을/를} 더 좋아해요.",
    "{who|이/가} {market}에서 {fruit|을/를} 샀어요.",
    "{who|이/가} 만든 {dish|은/는} 조금 {dish_is}.",
    "{market}에서 산 {fruit|은/는} 아주 {fruit_is}.",
    "{who|은/는} {habit} {drink|을/를} 마셔요.",
    "여기 {drink} {cups} 주세요.",
    "{future} {friend|이랑/랑} {dish|을/를} 먹고 싶어요.",
    "{who|이/가} {room}에서 {dish|을/를} 만들고 있어요.",
    "{future} {dish|을/를} 같이 먹을까요?",
    # reading, seeing, hearing, learning
    "{who|은/는} {habit} {read|을/를} 읽어요.",
    "{me|은/는} {past} {reading_place}에서 {read|을/를} 읽었어요.",
    "{who|이/가} 저에게 {read|을/를} 읽어 줬어요.",
    "{who|은/는} {friend}에게 {mail|을/를} 썼어요.",
    "{who|이/가} {past} 쓴 {story|은/는} 재미있어요.",
    "{past} {friend|과/와} {watch|을/를} 봤어요.",
    "{who|은/는} {future} {watch|을/를} 볼 거예요.",
    "{who|은/는} {room}에서 {listen|을/를} 들어요.",
    "{habit} {listen|을/를} 듣는 {who|이/가} 부러워요.",
    "{me|은/는} {future} {learn|을/를} 배우고 싶어요.",
    "요즘 {who|은/는} {learn|을/를} 배우고 있어요.",
    "{who|은/는} {weekday}마다 {learn|을/를} 배워요.",
    "{who|은/는} {friend}보다 {good_at|을/를} 잘해요.",
    "{future} {subject} 시험이 있어요.",
    "{who|은/는} {subject} 숙제를 끝냈어요.",
    "{weekday}에는 {subject} 수업이 없어요.",
    "{who|은/는} {room}에서 {subject|을/를} 공부해요.",
    "{subject} 선생님께서 {friend|을/를} 칭찬하셨어요.",
    # things and clothes
    "{who|이/가} {object|을/를} {place}에 두고 왔어요.",
    "{who} {object|이/가} {spot}에 있어요.",
    "{past} {object|을/를} {spot}에서 찾았어요.",
    "{past} {place}에서 {object|을/를} 잃어버렸어요.",
    "{who|이/가} 저에게 {object|을/를} 사 줬어요.",
    "{who|은/는} {color} {object|을/를} 샀어요.",
    "이 {color} {object|은/는} 너무 {thing_is}.",
    "{who} {object|을/를} 좀 빌려주세요.",
    "혹시 {who} {object|을/를} 봤어요?",
    "{color} {object|이/가} 어디에 있어요?",
    "{who|은/는} {past} {color} {clothes|을/를} 입었어요.",
    "{color} {clothes|이/가} {who}에게 어울려요.",
    "{who|은/는} {color} {shoes|을/를} 신고 있어요.",
    "{market}에서 {color} {shoes|을/를} 골랐어요.",
    # animals, nature, body
    "{past} {friend|과/와} {animal|을/를} 보러 갔어요.",
    "{who|은/는} {animal}보다 {animal|을/를} 더 좋아해요.",
    "{who|이/가} 키우는 {pet|은/는} {habit} {pet_does}.",
    "{who|은/는} {pet|과/와} {outdoors}에서 놀았어요.",
    "{pet|이/가} {spot}에서 자고 있어요.",
    "{city|은/는} {season}에 날씨가 {weather}.",
    "오늘은 {city} 날씨가 아주 {weather}.",
    "{past} {city}에 {rain|이/가} 많이 왔어요.",
    "{future} {city}에 {rain|이/가} 올 것 같아요.",
    "{season|이/가} 되면 {city|으로/로} 여행을 가요.",
    "{outdoors}에 {flower|이/가} 많이 피었어요.",
    "{who|은/는} {season}보다 {season|을/를} 좋아해요.",
    "{since}부터 {who|이/가} {body|이/가} 아팠어요.",
    "{who|은/는} {body|이/가} 아파서 병원에 갔어요.",
    # getting about
    "{who|은/는} {transport|을/를} 타고 {place}에 가요.",
    "{city}까지 {far|으로/로} {duration} 걸려요.",
    "{city}에 가는 {far|은/는} {hour}에 출발해요.",
    "{past} {transport|이/가} {duration} 늦게 왔어요.",
    "{shop|은/는} {place}에서 {near}.",
    "{shop|은/는} {weekday}에 문을 닫아요.",
    "{who} 집은 {place}에서 {near}.",
    "{city} {indoors|은/는} 아주 {place_is}.",
    # doing and feeling
    "{who|은/는} {past} {chore|을/를} 도왔어요.",
    "{habit} {who|이/가} {room|을/를} 청소해요.",
    "{friend|은/는} {outdoors}에서 {sport|을/를} 해요.",
    "{weekday}에 {who|과/와} {sport|을/를} 했어요.",
    "{who|은/는} {habit} {clock}에 일어나요.",
    "{who|은/는} {city}에서 일하는 {job|이에요/예요}.",
    "{friend|은/는} {job|이/가} 되고 싶어 해요.",
    "{who|은/는} {good_reason} 정말 {good_feeling}.",
    "{who|은/는} {bad_reason} 너무 {bad_feeling}.",
    "{good_reason} {friend|과/와} {food|을/를} 먹었어요.",
    "{place}에서는 {please} 주세요.",
    # elders
    "{elder}께서 {past} {place}에 가셨어요.",
    "{elder}께서는 {habit} {read|을/를} 읽으세요.",
    "{elder}께서 {dish|을/를} 만들어 주셨어요.",
    "{elder}께 {present|을/를} 드릴 거예요.",
    "{past} {elder}께서 {city}에서 오셨어요.",
    "{elder}께서 주신 {present|이/가} 마음에 들어요.",
    "{who|은/는} {elder}께 {mail|을/를} 썼어요.",
    "{elder}께서는 {habit} {clock}에 일어나세요.",
)
